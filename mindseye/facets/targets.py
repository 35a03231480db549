"""What discovery hands on: per facet a first image, the activation to reach and the channels that count."""

import html
import json
import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mindseye.facets.firmness import FIRM, KINDS_OF_DRAW
from mindseye.facets.photographs import SkippedFile
from mindseye.facets.pictures import html_table, inline_png, strip
from mindseye.facets.way_statistics import WayStatistics
from mindseye.files import MOST_TENSOR_BYTES, read_plain, write_atomically
from mindseye.tensors import packed, tensors_sha256, unpacked
from mindseye.words import with_class

FORMAT = 3
MOST_BYTES = 1 << 30  # of targets.json, which names every photograph
ONE_PHOTOGRAPH = 0.5  # a weight above which a facet is hardly a blend any more
OWN = 0.5  # of the weight, on photographs of the facet itself: below, its picture is of other facets
RGB = 3  # bands that a picture shows
SHOWN = 5  # photographs and channels of a facet in a notebook


@dataclass(frozen=True)
class FacetTargets:
    """The facets of one set of photographs at one layer. All tensors are on the CPU.

    C facets, N photographs each, M photographs in all, D channels of an H'×W' map (1×1 where the layer has none),
    images of ch channels and S×S pixels.
    """

    layer: str  # the exact name of the target layer
    root: str  # the folder of the photographs
    paths: tuple[str, ...]  # M, relative to root
    skipped: tuple[SkippedFile, ...]  # the files under root that could not be used, and why
    initial: Tensor  # [C, ch, S, S] in 0..1: Σ w·img
    maps: Tensor  # [C, D, H', W'], the target t = Σ w·a
    power: Tensor  # [C, D]: Σ w·mean_p a², the mean square of each channel over map and photographs
    channels: Tensor  # [C, k] int64, the top-k channels, strongest first
    weights: Tensor  # [C, N], Eq. 1; each row sums to 1
    chosen: Tensor  # [C, N] int64: which of the M photographs
    distances: Tensor  # [C, N] from the centre, in units of the embedding
    photographs: Tensor  # [C, N, ch, S, S] uint8
    embedding: Tensor  # [M, 2]
    labels: Tensor  # [M] int64: the cluster of each photograph; clusters are numbered by size, largest first
    centres: Tensor  # [C, 2]
    mean_activation: Tensor  # [D]: the layer's channel means over all M photographs
    content: str = ""  # sha256 over the bytes of the M photographs; "" where it is not known, or they changed meanwhile
    held_out: tuple[str, ...] = ()  # H further photographs, relative to root, that took part in nothing but measures
    held_out_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # [H]: each one's facet
    # Of facets of earlier versions nothing of the following is known: all are then empty.
    firmness: Tensor = field(default_factory=lambda: torch.empty(0))  # [C] in 0..1: see `measure_firmness`
    agreement: Tensor = field(default_factory=lambda: torch.empty(0))  # [3] of all facets: see `Firmness`
    stays: Tensor = field(default_factory=lambda: torch.empty(0))  # [M] in 0..1: how often each is with its facet
    clarity: Tensor = field(default_factory=lambda: torch.empty(0))  # [C], in this layer: see `clarity`
    redundancy: Tensor = field(default_factory=lambda: torch.empty(0))  # [C], in this layer: see `redundancy`
    way: tuple[WayStatistics, ...] = ()  # what the layers on the way to the target answer the facets' photographs
    farthest: bool = False  # whether those that stand for each facet are the farthest from its centre, as was asked
    bands: tuple[int, ...] = ()  # of more than three, those that are shown as red, green, blue; none: the first three

    @property
    def C(self) -> int:
        """The number of facets."""
        return self.maps.shape[0]

    @property
    def effective(self) -> Tensor:
        """[C]: 1/Σw², how many photographs each blend amounts to: N where all count alike, 1 where one has all."""
        return 1 / self.weights.square().sum(dim=1)

    def marks(self) -> list[list[str]]:
        """What to know of each facet before its picture is looked at, a word or two each; none for most."""
        marks: list[list[str]] = [[] for _ in range(self.C)]
        for c, firmness in enumerate(self.firmness.tolist()):
            if firmness < FIRM:
                marks[c].append("not firm")
        for c, weight in enumerate(self.weights.max(dim=1).values.tolist()):
            if weight > ONE_PHOTOGRAPH and self.weights.shape[1] > 1:
                marks[c].append("one photograph")
        own = (self.labels[self.chosen] == torch.arange(self.C)[:, None]) * self.weights
        for c, share in enumerate(own.sum(dim=1).tolist()):
            if share < OWN and not self.farthest:  # which mostly are others': no facet is told from another by that
                marks[c].append("mostly others'")
        return marks

    def shown(self, images: Tensor) -> Tensor:
        """Of images [..., ch, S, S] of more than three bands the three that pictures show; others as they are."""
        if images.shape[-3] <= RGB:
            return images
        return images[..., list(self.bands or range(RGB)), :, :]

    @property
    def k(self) -> int:
        """How many channels of each facet count."""
        return self.channels.shape[1]

    def strength(self) -> Tensor:
        """How strong the top-k maps of the photographs are, their root mean square norm ‖a‖: [C].

        That of the target, a blend of maps that are strong in different places, is smaller.
        """
        return photographs_strength(self.power, self.channels, self.maps[0, 0].numel())

    def with_k(self, k: int) -> "FacetTargets":
        """The same facets with the k strongest channels of each. Raises ValueError where there are fewer than k."""
        return replace(self, channels=top_channels(self.maps, k))

    def nearest(self) -> Tensor:
        """The photograph with the largest weight of each facet: [C, ch, S, S] in 0..1."""
        best = self.weights.argmax(dim=1)
        return self.photographs[torch.arange(self.C), best].float() / 255

    def content_hash(self) -> str:
        """sha256 over every tensor's bytes and all that is said of them: equal exactly where the targets are equal."""
        return tensors_sha256(self._tensors(), json.dumps(self._description(), sort_keys=True))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write targets.safetensors, then targets.json with its hash: the JSON is there only where both are whole."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        write_atomically(place / "targets.safetensors", b"".join(packed(tensors, {})))
        description = {
            "format": FORMAT, "content_hash": self.content_hash(), **self._description(), "about": self._about(),
        }  # fmt: skip
        write_atomically(place / "targets.json", json.dumps(description, indent=1).encode())
        return place

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "FacetTargets":
        """Read what `save` wrote. Raises ValueError where a file is missing, of another format, a link, or damaged.

        The folder may be anybody's: JSON and safetensors are read, and nothing in them is run.
        """
        place = Path(folder)
        try:
            fields = json.loads(read_plain(place / "targets.json", place, MOST_BYTES))
            stored = read_plain(place / "targets.safetensors", place, MOST_TENSOR_BYTES)
            tensors: dict[str, Any] = unpacked(bytearray(stored))[0]
            if fields.pop("format") != FORMAT:
                raise ValueError(f"written in another format than {FORMAT}")
            expected = fields.pop("content_hash")
            fields.pop("about", None)  # for those who read the JSON alone: the tensors say it
            skipped = tuple(SkippedFile(**entry) for entry in fields.pop("skipped"))
            paths, held_out = tuple(fields.pop("paths")), tuple(fields.pop("held_out", ()))
            kinds = ("mean", "std", "quantiles")
            way = tuple(
                WayStatistics(layer, *(tensors.pop(f"way.{place}.{kind}") for kind in kinds))
                for place, layer in enumerate(fields.pop("way", ()))
            )
            bands = tuple(fields.pop("bands", ()))
            targets = cls(**tensors, skipped=skipped, paths=paths, held_out=held_out, way=way, bands=bands, **fields)
            targets._check()
        except Exception as error:
            reason = with_class(error)
            raise ValueError(f"{place} holds no readable facet targets ({reason})") from error
        if targets.content_hash() != expected:
            raise ValueError(f"{place} is damaged: its content is not what its hash says; delete it and discover again")
        return targets

    def _check(self) -> None:
        """Raises ValueError where shapes do not agree or an index leads nowhere: a hash says nothing of who made it."""
        skipped = (text for file in self.skipped for text in (file.path, file.reason))
        between = (statistics.layer for statistics in self.way)
        texts = (self.layer, self.root, self.content, *self.paths, *self.held_out, *skipped, *between)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name is no text")
        (C, N), M = self.chosen.shape, len(self.paths)
        ch, S = self.initial.shape[1:3]
        shapes = {
            "initial": (C, ch, S, S), "maps": (C, *self.maps.shape[1:]), "power": self.maps.shape[:2],
            "channels": (C, self.k), "weights": (C, N),
            "distances": (C, N), "photographs": (C, N, ch, S, S), "embedding": (M, 2), "labels": (M,),
            "centres": (C, 2), "mean_activation": self.maps.shape[1:2], "held_out_labels": (len(self.held_out),),
        }  # fmt: skip
        for statistics in self.way:
            D = statistics.mean.shape[1]
            for name, tensor in statistics.tensors().items():
                if tensor.shape[:2] != (C, D) or tensor.ndim != (3 if name == "quantiles" else 2):
                    raise ValueError(f"{name} of {statistics.layer} is {list(tensor.shape)}, not [{C}, {D}, …]")
        later = {"firmness": (C,), "agreement": (3,), "stays": (M,), "clarity": (C,), "redundancy": (C,)}
        shapes |= {name: shape for name, shape in later.items() if getattr(self, name).numel()}
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != tuple(shape):
                raise ValueError(f"{name} is {list(getattr(self, name).shape)}, not {list(shape)}")
        if type(self.farthest) is not bool:
            raise ValueError(f"farthest must be true or false, not {self.farthest}")
        if self.bands and not (len(self.bands) == RGB and all(type(b) is int and 0 <= b < ch for b in self.bands)):
            raise ValueError(f"bands must be three numbers of 0 to {ch - 1}, not {self.bands}")
        if self.maps.ndim != 4 or min(C, N, M, S) < 1:
            raise ValueError("there is nothing in it")
        indices = {"chosen": M, "labels": C, "channels": self.maps.shape[1], "held_out_labels": C}
        for name, most in indices.items():
            values = getattr(self, name)
            if values.dtype != torch.int64 or ((values < 0) | (values >= most)).any():
                raise ValueError(f"{name} holds what is no number of 0 to {most - 1}")

    @property
    def subtitle(self) -> str:
        """One line on what was asked of what."""
        ch = self.initial.shape[1]
        named = ", ".join(map(str, self.bands or range(RGB)))
        bands = f" · bands {named} of {ch} as red, green, blue" if ch > RGB else " · mean of 2 bands" * (ch == 2)
        of = f"top {self.k} of {self.maps.shape[1]} channels"
        return f"{of} · {self.C} facets of {len(self.paths)} photographs{bands}"

    def __repr__(self) -> str:
        """One line for a prompt, which would otherwise print every pixel."""
        return f"<FacetTargets at {self.layer}: {self.subtitle}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row per facet with its photographs, the largest weight first, and their blend."""
        place, layer = html.escape(self.root), html.escape(self.layer)
        rows = []
        firmness = [f"{value:.2f}" for value in self.firmness.tolist()] or [""] * self.C
        marks = self.marks()
        for c, size in enumerate(self.labels.bincount(minlength=self.C).tolist()):
            order = self.weights[c].argsort(descending=True, stable=True)[:SHOWN].tolist()
            photographs = strip([self.shown(self.photographs[c, n]) for n in order])
            first = html.escape(self.paths[int(self.chosen[c, order[0]])])
            channels = ", ".join(map(str, self.channels[c, :SHOWN].tolist()))
            rows.append([
                str(c), str(size), ", ".join([firmness[c], *marks[c]]),
                inline_png(photographs, f"photographs of facet {c}"),
                inline_png(strip([self.shown(self.initial[c])]), f"initial image of facet {c}"), first, f"{channels} …",
            ])  # fmt: skip
        heads = [
            "facet", "photographs", "firmness", "the nearest", "initial image", "the first of them",
            "strongest channels",
        ]  # fmt: skip
        return f"<p><b>{layer}</b> · {self.subtitle}<br>{place}</p>{html_table(heads, rows)}"

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        between = {
            f"way.{place}.{name}": tensor
            for place, statistics in enumerate(self.way)
            for name, tensor in statistics.tensors().items()
        }
        # What is empty is left out: earlier versions' targets, whose hash says so, have no such names.
        known = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.numel()}
        return known | between

    def _about(self) -> dict[str, object]:
        """What a person would ask: each facet's size, how firm it is and its marks; how often each photograph stays.

        Of facets of earlier versions, whose firmness is not known, without it.
        """
        sizes = self.labels.bincount(minlength=self.C).tolist()
        firmness = [{"firmness": value} for value in _rounded(self.firmness)] or [{}] * self.C
        said = zip(sizes, firmness, _rounded(self.effective), self.marks(), strict=True)
        about: dict[str, object] = {
            "facets": [
                {"photographs": size, **firm, "effective": effective, "marks": marks}
                for size, firm, effective, marks in said
            ]
        }
        if self.agreement.numel():
            about["agreement"] = dict(zip(KINDS_OF_DRAW, _rounded(self.agreement), strict=True))
            about["stays"] = _rounded(self.stays)  # in the order of `paths`
        return about

    def _description(self) -> dict[str, object]:
        skipped = [{"path": file.path, "reason": file.reason} for file in self.skipped]
        way = [statistics.layer for statistics in self.way]
        known = {"content": self.content, "held_out": list(self.held_out), "way": way, "bands": list(self.bands)}
        return {
            "layer": self.layer, "root": self.root, "paths": list(self.paths), "skipped": skipped,
            **{name: value for name, value in known.items() if value},  # earlier versions' targets have none
            **({"farthest": True} if self.farthest else {}),
        }  # fmt: skip


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def photographs_strength(power: Tensor, channels: Tensor, positions: int) -> Tensor:
    """√(P·Σ_j power_j) over the channels given: power [C, D], channels [C, k], P = H'·W' positions -> [C]."""
    return (positions * power.gather(1, channels).sum(dim=1)).sqrt()


def top_channels(maps: Tensor, k: int) -> Tensor:
    """Per facet the k channels of the largest spatial mean, strongest first: maps [C, D, H', W'] -> int64 [C, k]."""
    D = maps.shape[1]
    if not 1 <= k <= D:
        raise ValueError(f"k must be 1 to {D} (the layer's channels), not {k}")
    means = maps.flatten(2).mean(dim=2)
    # Stable: of equal channels the first is taken, so that two runs never differ.
    return means.sort(dim=1, descending=True, stable=True).indices[:, :k].contiguous()
