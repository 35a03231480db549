"""From channel means to their principal components, and from there to two dimensions (t-SNE)."""

import hashlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mindseye.facets.one_thread import one_thread
from mindseye.fields import Count, check

Method = Literal["auto", "barnes_hut", "fft", "subsample"]
Stage = Callable[[str, float | None], None]  # what is going on; how much of it is done, 0..1, where that is known
log = logging.getLogger(__name__)

FEWEST_FOR_TSNE = 6  # below this t-SNE has no neighbourhoods to keep: the principal components are the embedding
# Rows that become float64 at a time, 64 MiB of 2,048 channels; so many photographs or fewer go to scikit-learn's PCA.
CHUNK = 4096
SAME_WAY = 1e-6  # of the directions' variance: below it all point the same way
START, NOISE = 1e-4, 0.01  # t-SNE's start: its deviation, as both libraries have it, and the share of it that is noise
NEIGHBOURS = 5  # embedded ones between which a photograph outside the subsample is placed
EXAGGERATED, PLAIN, STRIDE = 250, 500, 10  # openTSNE's iterations, its defaults; every so many are told of


def to_components(means: Tensor, *, components: int, unit: bool, seed: int = 0) -> "Components":
    """Channel means [M, D] -> their principal components, and the axes that take further photographs there.

    `unit`: of their directions, every row divided by its length, so that a photograph that the layer answers strongly
    is not another kind of photograph; where all point the same way (one channel, shades of grey) rows stay as they are.
    One thread, so that sums are always taken in the same order.
    """
    check("components", components, Count)
    unit = unit and not _point_the_same_way(means)
    rows = to_unit_length(means) if unit else means
    if count_different(rows, 2) < 2:
        return Components(torch.zeros(len(rows), 1, dtype=torch.float64), torch.zeros(rows.shape[1]), None, unit)
    with one_thread():
        reduced, mean, axes = _fit_components(rows, components, seed)
    reduced = reduced[_firsts(rows)]  # products round copies differently, by where in the matrix they stand
    return Components(torch.from_numpy(reduced), torch.from_numpy(mean), torch.from_numpy(axes), unit)


@dataclass(frozen=True)
class Components:
    """Photographs in the space of their principal components."""

    reduced: Tensor  # [M, P] float64
    mean: Tensor  # [D], of the rows they were found from
    axes: Tensor | None  # [P, D], orthonormal; None where all photographs are the same
    unit: bool  # rows were divided by their lengths

    def place(self, means: Tensor) -> Tensor:
        """Other photographs' channel means [H, D] in the same space: float64 [H, P]."""
        rows = (to_unit_length(means) if self.unit else means).double()
        if self.axes is None:
            return rows.new_zeros(len(rows), 1)
        return (rows - self.mean.double()) @ self.axes.T


def reduce_quickly(means: Tensor, *, components: int, unit: bool) -> Tensor:
    """The principal components of `to_components` alone, but for their signs: channel means [M, D] -> float64 [M, P].

    By the eigenvectors of the M × M products of the rows or, of fewer channels, of the D × D of the channels: an SVD of
    600 photographs at a layer of 2048 channels takes five times as long. What is below 1e-8 of the largest component
    is rounding here, which moves no cluster.
    """
    from scipy.linalg import eigh

    unit = unit and not _point_the_same_way(means)
    rows = to_unit_length(means) if unit else means
    if count_different(rows, 2) < 2:
        return torch.zeros(len(rows), 1, dtype=torch.float64)
    with one_thread():
        centred = rows.double().numpy()
        centred = centred - centred.mean(axis=0)
        M, D = centred.shape
        products = centred @ centred.T if M < D else centred.T @ centred
        least = len(products) - min(components, M, D)
        squares, vectors = eigh(products, subset_by_index=[least, len(products) - 1])
        reduced = vectors * np.sqrt(squares.clip(min=0)) if M < D else centred @ vectors
    return torch.from_numpy(reduced[:, ::-1].copy())[_firsts(rows)]  # copies lie at one place


def to_unit_length(means: Tensor) -> Tensor:
    """Rows [M, D] divided by their lengths; a row of zeros stays one."""
    return torch.nn.functional.normalize(means.double(), dim=1).float()


def _point_the_same_way(means: Tensor) -> bool:
    """Whether the directions' variance, 1 − ‖mean direction‖², is nothing but rounding."""
    silent = means.norm(dim=1) == 0
    directions = to_unit_length(means[~silent]).double()
    return len(directions) == 0 or float(1 - directions.mean(dim=0).square().sum()) < SAME_WAY


def embed(
    reduced: Tensor,
    *,
    perplexity: float = 30.0,
    tsne: Method = "auto",
    subsample: int = 5000,
    seed: int = 0,
    stage: Stage | None = None,
) -> Tensor:
    """Principal components [M, P], their variances falling -> two-dimensional embeddings [M, 2] by t-SNE.

    `tsne` says how: `barnes_hut` is scikit-learn's (van der Maaten 2014), the cost growing with M·log M; `fft` is
    openTSNE's (Linderman et al. 2019; Poličar et al. 2024), which needs the extra `tsne` and grows with M;
    `subsample` embeds so many photographs, drawn by `seed`, by `barnes_hut` and places the others by `place`. `auto`
    is `barnes_hut` for `subsample` photographs or fewer, else `fft` where openTSNE is installed, else `subsample`.

    `perplexity` is lowered to (M − 1)/3 where there are too few photographs for it. With fewer than
    FEWEST_FOR_TSNE different ones the first two principal components are the embedding. It starts from these two and a
    hundredth of noise by `seed`. One thread, so that the sums inside are always taken in the same order: the same
    input and seed give the same bytes. Beside its input it takes some 100 MB and 5 kB per photograph. `stage` is told
    what is going on. Raises ValueError, in one line, for wrong values.
    """
    M = len(reduced)
    check("perplexity", perplexity, Annotated[float, Field(ge=1)])
    method = pick_method(M, tsne, subsample)
    told = stage or (lambda doing, done: None)
    different = count_different(reduced, FEWEST_FOR_TSNE)
    if different == 1:
        return torch.zeros(M, 2)
    rows = reduced.double().numpy()
    if different < FEWEST_FOR_TSNE:
        return _first_two(rows)
    with one_thread():
        doing = f"embedding {M:,} photographs (t-SNE)"
        if method == "fft":
            log.info("%s by openTSNE's FFT", doing)
            return torch.from_numpy(_fft(rows, perplexity, seed, lambda done: told(doing, done))).float()
        if method == "barnes_hut":
            log.info("%s by scikit-learn's Barnes-Hut", doing)
            told(doing, None)
            return torch.from_numpy(_barnes_hut(rows, perplexity, seed)).float()
        log.info("%s by scikit-learn's Barnes-Hut of %d, the others placed between these", doing, subsample)
        drawn = np.sort(np.random.default_rng(seed).choice(M, subsample, replace=False))
        if count_different(reduced[drawn], FEWEST_FOR_TSNE) < FEWEST_FOR_TSNE:
            return _first_two(rows)  # all but copies of very few
        told(f"embedding {subsample:,} of {M:,} photographs (t-SNE)", None)
        embedded = _barnes_hut(rows[drawn], perplexity, seed)
        told(f"placing {M - subsample:,} photographs", None)
        flat = place(rows, rows[drawn], embedded)
        flat[drawn] = embedded
        return torch.from_numpy(flat).float()


def pick_method(M: int, tsne: Method, subsample: int) -> Literal["barnes_hut", "fft", "subsample"]:
    """What `tsne` comes to for M photographs on this machine. Raises ValueError where it cannot be done."""
    check("tsne", tsne, Method)
    check("subsample", subsample, Annotated[int, Field(ge=FEWEST_FOR_TSNE)])
    installed = importlib.util.find_spec("openTSNE") is not None
    if tsne == "fft" and not installed:
        raise ValueError(
            "tsne=fft needs openTSNE: pip install 'mindseye[tsne]'; auto, barnes_hut and subsample do without"
        )
    if tsne in ("auto", "subsample") and subsample >= M:
        return "barnes_hut"
    if tsne == "auto":
        return "fft" if installed else "subsample"
    return tsne


def count_different(rows: Tensor, enough: int) -> int:
    """How many different rows [M, D] there are, copies counted once, `enough` at most: it reads no further then."""
    seen: set[bytes] = set()
    for row in rows:
        seen.add((row + 0.0).numpy().tobytes())  # −0 + 0 is 0
        if len(seen) == enough:
            break
    return len(seen)


def _firsts(rows: Tensor) -> list[int]:
    """For each row of [M, D] the first one that is the same."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b((row + 0.0).numpy().tobytes(), digest_size=16).digest() for row in rows)  # −0 + 0 is 0
    return [seen.setdefault(digest, index) for index, digest in enumerate(digests)]


def principal_components(means: Tensor, components: int, *, seed: int = 0) -> np.ndarray:
    """Exact PCA, without randomness or updates: [M, D] -> float64 [M, min(components, M, D)], variances falling."""
    return _fit_components(means, components, seed)[0]


def _fit_components(means: Tensor, components: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(components [M, P], mean [D], axes [P, D]), all float64.

    Up to CHUNK photographs, or no more than channels, scikit-learn's, by SVD. Above, by the eigenvectors of the D × D
    covariance, summed in float64 over chunks of centred rows, so the [M, D] are never copied as a whole. (Its
    IncrementalPCA is bounded too, but merges truncated bases: its later components are approximate and depend on the
    chunks.) Each component's largest loading is positive, so that signs are settled.
    """
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsyrk
    from sklearn.decomposition import PCA

    M, D = means.shape
    kept = min(components, M, D)
    if max(CHUNK, D) >= M:
        fitted = PCA(kept, svd_solver="full", random_state=seed)
        reduced = fitted.fit_transform(means.numpy().astype(np.float64))
        return reduced, fitted.mean_, fitted.components_
    chunks = [slice(first, first + CHUNK) for first in range(0, M, CHUNK)]
    mean = sum(means[chunk].numpy().sum(axis=0, dtype=np.float64) for chunk in chunks) / M
    scatter = np.zeros((D, D), order="F")
    for chunk in chunks:
        centred = means[chunk].numpy() - mean  # float64, as the mean is
        # The upper triangle alone: half the work of a whole product. Transposed, rows are columns, as BLAS wants them.
        scatter = dsyrk(1.0, centred.T, beta=1.0, c=scatter, overwrite_c=True)
    _, vectors = eigh(scatter, lower=False, overwrite_a=True, subset_by_index=[D - kept, D - 1], driver="evr")
    vectors = vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(kept)] < 0, -1.0, 1.0)
    reduced = np.empty((M, kept))
    for chunk in chunks:
        reduced[chunk] = (means[chunk].numpy() - mean) @ vectors
    return reduced, np.asarray(mean), np.ascontiguousarray(vectors.T)


def place(rows: np.ndarray, known: np.ndarray, embedded: np.ndarray) -> np.ndarray:
    """Points outside an embedding into it: rows [M, P], known [S, P] with embedded [S, 2] -> [M, 2].

    Each is the mean of its NEIGHBOURS nearest known rows' embeddings, weighted by 1/distance, as openTSNE starts when
    it adds points; a copy of a known row comes to lie on it. Few neighbours, so that hardly any lie in two clusters.
    """
    from sklearn.neighbors import KNeighborsRegressor

    fitted = KNeighborsRegressor(min(NEIGHBOURS, len(known)), weights="distance", n_jobs=1).fit(known, embedded)
    placed = np.empty((len(rows), embedded.shape[1]))
    for first in range(0, len(rows), CHUNK):
        placed[first : first + CHUNK] = fitted.predict(rows[first : first + CHUNK])
    return placed


def _first_two(reduced: np.ndarray) -> Tensor:
    flat = np.zeros((len(reduced), 2))
    flat[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    return torch.from_numpy(flat).float()


def _barnes_hut(reduced: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    tsne = TSNE(2, perplexity=min(perplexity, (len(reduced) - 1) / 3), init=_start(reduced, seed), n_jobs=1)
    return tsne.fit_transform(_at_least_two_columns(reduced))


def _fft(reduced: np.ndarray, perplexity: float, seed: int, told: Callable[[float | None], None]) -> np.ndarray:
    from openTSNE import TSNE

    told(None)  # looking for neighbours
    iterations = [0]

    def count(iteration: int, error: float, embedding: np.ndarray) -> None:
        iterations[0] += STRIDE
        told(iterations[0] / (EXAGGERATED + PLAIN))

    tsne = TSNE(
        2,
        perplexity=min(perplexity, (len(reduced) - 1) / 3),
        early_exaggeration_iter=EXAGGERATED,
        n_iter=PLAIN,
        negative_gradient_method="fft",
        initialization=_start(reduced, seed),
        random_state=seed,
        n_jobs=1,
        callbacks=count,
        callbacks_every_iters=STRIDE,
    )
    return np.asarray(tsne.fit(_at_least_two_columns(reduced)))


def _start(reduced: np.ndarray, seed: int) -> np.ndarray:
    """Where t-SNE starts: the first two components, the first of them with deviation START, and noise by `seed`.

    Both libraries would start from the components alone, whatever the seed: there would be but one embedding.
    """
    first = _at_least_two_columns(reduced)[:, :2]
    noise = np.random.default_rng(seed).standard_normal(first.shape)
    return (START * (first / np.std(first[:, 0]) + NOISE * noise)).astype(np.float32)


def _at_least_two_columns(reduced: np.ndarray) -> np.ndarray:
    """t-SNE starts in two dimensions."""
    return reduced if reduced.shape[1] > 1 else np.hstack([reduced, np.zeros_like(reduced)])
