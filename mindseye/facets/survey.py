"""What a layer says of every photograph: one pass up to the layer, the spatial mean of each channel kept."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mindseye.facets.photographs import Photographs, SkippedFile
from mindseye.networks.network import Network
from mindseye.networks.recording import record

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What the layer says of each readable photograph: its channel means, not its maps, so memory is M·D numbers."""

    means: Tensor  # [M, D]
    photographs: Photographs  # the M readable ones, `skipped` complete


@torch.no_grad()
def survey(
    network: Network,
    photographs: Photographs,
    layer: str,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Survey:
    """Run every photograph up to `layer`, never past it, and keep the spatial mean of each channel.

    A file that cannot be read is left out and named in `photographs.skipped`. Raises ValueError where none is left,
    where the layer's output has no channels (see `as_maps`) or holds NaN or infinite values.
    """
    device = network.mean.device
    means: list[Tensor] = []
    readable: list[int] = []
    skipped: list[SkippedFile] = []
    with record(network, layer) as tape:
        for indices, images, unreadable in photographs.batches(batch_size):
            skipped += unreadable
            if indices:
                try:
                    answer = tape(to_unit(images, device))
                except (RuntimeError, AssertionError) as error:
                    # An image smaller than the network's kernels and strides, or not of its one size.
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    size = photographs.size
                    raise ValueError(
                        f"{network.name} cannot look at {size}×{size} images up to {layer} ({reason}); "
                        "try another images.size"
                    ) from error
                means.append(as_maps(answer, layer).flatten(2).mean(dim=2).float().cpu())
                readable += indices
            if progress is not None:
                progress(len(readable) + len(skipped), len(photographs))
    _say_skipped([*photographs.skipped, *skipped])
    if not readable:
        reason = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there are none"
        raise ValueError(f"none of the {len(photographs)} photographs under {photographs.root} is readable ({reason})")
    kept = Photographs(
        root=photographs.root,
        paths=tuple(photographs.paths[index] for index in readable),
        size=photographs.size,
        channels=photographs.channels,
        skipped=(*photographs.skipped, *skipped),
    )
    everything = torch.cat(means)
    bad = ~everything.isfinite().all(dim=1)
    if bad.any():
        first = kept.paths[int(bad.nonzero()[0])]
        raise ValueError(
            f"layer {layer} gives NaN or infinite activations for {int(bad.sum())} of {len(kept)} photographs, "
            f"the first {first}; check the network's weights and its mean and std"
        )
    return Survey(everything, kept)


def _say_skipped(skipped: Sequence[SkippedFile]) -> None:
    """Every file in the log; on the terminal, which shows warnings, the first of them and how many there are."""
    for file in skipped:
        log.info("skipped %s: %s", file.path, file.reason)
    if skipped:
        more = f" and {len(skipped) - 1} more (named in the log)" if len(skipped) > 1 else ""
        log.warning("skipped %s: %s%s", skipped[0].path, skipped[0].reason, more)


def to_unit(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on any device -> float32 in 0..1 on `device`."""
    return images.to(device, non_blocking=True).float() / 255


def as_maps(activation: Tensor, layer: str) -> Tensor:
    """A layer's output as maps [B, D, H', W']; a pooled one [B, D] has maps of one pixel. ValueError for the rest."""
    if activation.ndim == 4:
        return activation
    if activation.ndim == 2:
        return activation[:, :, None, None]
    raise ValueError(
        f"layer {layer} gives a tensor of shape {list(activation.shape)}; a visualisation needs maps [B, D, H, W] or "
        "pooled channels [B, D]: `mindseye layers` lists the layers that have them"
    )
