"""The precomputed targets, handed to the trainer once per step without being copied to the device each time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindseye.facets.targets import FacetTargets
from mindseye.facets.way_statistics import WayStatistics


class TargetBatch(NamedTuple):
    """What one step needs of all C facets."""

    maps: Tensor  # [C, D, H', W']
    strength: Tensor  # [C]: ‖a‖ of the photographs' top-k maps
    channels: Tensor  # [C, k] int64
    way: tuple[WayStatistics, ...] = ()  # of the layers on the way that the network records


class Repeated:
    """One batch, `times` times. Lightning takes any sized iterable for a loader; no worker, no collation."""

    def __init__(self, batch: TargetBatch, times: int) -> None:
        self.batch = batch
        self.times = times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[TargetBatch]:
        for _ in range(self.times):
            yield self.batch


class FacetTargetsDataModule(pl.LightningDataModule):
    """Supplies the targets of all facets as the batch of every one of `steps` steps.

    way: the names of the layers on the way whose statistics are among them.
    """

    def __init__(self, targets: FacetTargets, steps: int, way: Sequence[str] = ()) -> None:
        super().__init__()
        known = {statistics.layer: statistics for statistics in targets.way}
        self.batch = TargetBatch(targets.maps, targets.strength(), targets.channels, tuple(known[name] for name in way))
        self.steps = steps
        self._moved: tuple[torch.device, TargetBatch] | None = None

    def train_dataloader(self) -> Repeated:
        """The batch, once for each step."""
        return Repeated(self.batch, self.steps)

    def transfer_batch_to_device(self, batch: TargetBatch, device: torch.device, dataloader_idx: int) -> TargetBatch:
        """Moved at the first step only: the targets never change."""
        if self._moved is None or self._moved[0] != device:
            way = tuple(statistics.to(device) for statistics in batch.way)
            maps, strength, channels = (tensor.to(device) for tensor in batch[:3])
            self._moved = (device, TargetBatch(maps, strength, channels, way))
        return self._moved[1]
