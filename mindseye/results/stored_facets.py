"""The facets that a run folder keeps, without their pictures: which photographs, where on the map, which channels."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindseye.files import plain_file, read_plain
from mindseye.tensors import read_some

_MOST_SAID = 64 << 20  # bytes of targets.json
_READ = ("embedding", "labels", "centres", "chosen", "weights", "channels")


@dataclass(frozen=True)
class StoredFacets:
    """C facets of M photographs, N of them blended in each, k of the layer's D channels."""

    layer: str
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
    said = json.loads(read_plain(run / "targets/targets.json", run, _MOST_SAID))
    try:
        paths, layer = tuple(str(path) for path in said["paths"]), str(said["layer"])
        tensors, shapes = read_some(plain_file(run / "targets/targets.safetensors", run), _READ)
        found = {name: tensors[name].numpy() for name in _READ}
        (C, N), M, D = found["chosen"].shape, len(paths), int(shapes["maps"][1])
        k = found["channels"].shape[1]
    except (KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        raise ValueError(f"its targets are damaged ({type(error).__name__})") from error
    expected = {
        "embedding": (M, 2), "labels": (M,), "centres": (C, 2), "chosen": (C, N), "weights": (C, N), "channels": (C, k),
    }  # fmt: skip
    whole = all(found[name].shape == shape for name, shape in expected.items())
    limits = {"labels": C, "chosen": M, "channels": D}
    inside = whole and all(
        found[name].dtype == np.int64 and ((found[name] >= 0) & (found[name] < most)).all()
        for name, most in limits.items()
    )
    finite = inside and all(np.isfinite(found[name]).all() for name in ("embedding", "centres", "weights"))
    if not finite or min(C, M) < 1 or len(set(paths)) != M:
        raise ValueError("its targets are damaged: shapes, numbers or names do not agree")
    return StoredFacets(layer, D, paths, **found)
