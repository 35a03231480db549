"""The facets that a run folder keeps, without their pictures: which photographs, where on the map, which channels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from mindseye.files import plain_file, read_plain

_MOST_SAID = 64 << 20  # bytes of targets.json
_READ = ("embedding", "labels", "centres", "chosen", "weights", "channels")


@dataclass(frozen=True)
class StoredFacets:
    """C facets of M photographs, N of them blended in each, k of the layer's D channels."""

    layer: str
    root: str  # the folder of the photographs
    content: str  # sha256 over their bytes; "" where it is not known
    D: int
    paths: tuple[str, ...]  # M
    embedding: np.ndarray  # [M, 2], the plane of t-SNE, without unit
    labels: np.ndarray  # int64 [M] in 0..C−1
    centres: np.ndarray  # [C, 2]
    chosen: np.ndarray  # int64 [C, N], which of the photographs each facet is blended of
    weights: np.ndarray  # [C, N], Eq. 1
    channels: np.ndarray  # int64 [C, k], the strongest first


def read_stored_facets(run: Path) -> StoredFacets:
    """Read targets/ of a run folder, a few kilobytes of it, whatever its pictures weigh.

    The folder may be anybody's. Raises FileNotFoundError where it keeps none, OSError and ValueError, in one line,
    where they cannot be read; their hash, which is over the pictures as well, is not looked at.
    """
    header = json.loads(read_plain(run / "targets/targets.json", run, _MOST_SAID))
    try:
        paths, layer = tuple(str(path) for path in header["paths"]), str(header["layer"])
        root, content = str(header["root"]), str(header.get("content", ""))
        with safe_open(plain_file(run / "targets/targets.safetensors", run), "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in _READ}
            D = int(file.get_slice("maps").get_shape()[1])
        (C, N), M = arrays["chosen"].shape, len(paths)
        k = arrays["channels"].shape[1]
    except (KeyError, TypeError, IndexError, ValueError, RecursionError, SafetensorError) as error:
        raise ValueError(f"its targets are damaged ({type(error).__name__})") from error
    expected = {
        "embedding": (M, 2), "labels": (M,), "centres": (C, 2), "chosen": (C, N), "weights": (C, N), "channels": (C, k),
    }  # fmt: skip
    whole = all(arrays[name].shape == shape for name, shape in expected.items())
    limits = {"labels": C, "chosen": M, "channels": D}
    inside = whole and all(
        arrays[name].dtype == np.int64 and ((arrays[name] >= 0) & (arrays[name] < most)).all()
        for name, most in limits.items()
    )
    finite = inside and all(np.isfinite(arrays[name]).all() for name in ("embedding", "centres", "weights"))
    if not finite or min(C, M) < 1 or len(set(paths)) != M:
        raise ValueError("its targets are damaged: shapes, numbers or names do not agree")
    return StoredFacets(layer, root, content, D, paths, **arrays)


def worlds(stored: Sequence[StoredFacets]) -> list[int]:
    """A number for each, the same for those whose photographs of one name are one photograph.

    The same names have the same bytes, where these are known; others come from the same folder, of which some have only
    a part, say, since some are held out. The demo's photographs have the same names under every seed and are others.
    """
    numbers: list[int] = []
    seen: dict[tuple[str, str, tuple[str, ...]], int] = {}
    kept: list[tuple[StoredFacets, int]] = []
    for facets in stored:
        key = (facets.root, facets.content, facets.paths)
        if key not in seen:
            world = next((number for other, number in kept if _of_one_world(facets, other)), len(kept))
            seen[key] = world
            kept.append((facets, world))
        numbers.append(seen[key])
    order = {world: number for number, world in enumerate(dict.fromkeys(numbers))}
    return [order[world] for world in numbers]


def _of_one_world(facets: StoredFacets, other: StoredFacets) -> bool:
    if facets.paths == other.paths and facets.content and other.content:
        return facets.content == other.content
    return facets.root == other.root
