"""The photographs grouped: components, embedding, clusters and how firm they are, each kept for whoever asks again."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mindseye.facets.cache import Cache
from mindseye.facets.clusters import (
    cluster,
    find_clusters,
    means_of,
    nearest_cluster,
)
from mindseye.facets.embedding import (
    Components,
    Stage,
    count_different,
    embed,
    place,
    reduce_quickly,
    to_components,
)
from mindseye.facets.firmness import Draws, Firmness, measure_firmness
from mindseye.facets.number import TRIED, Choice, choose_number
from mindseye.facets.survey import Survey
from mindseye.provenance import code_of, versions
from mindseye.settings import Facets

# What the cache's keys say of the program.
EMBEDDING_CODE = code_of(inspect.getfile(embed))
CLUSTERS_CODE = code_of(*(inspect.getfile(made) for made in (embed, cluster, measure_firmness)), __file__)

RUNS_AGAIN, STARTS_AGAIN = 5, 60  # of a consensus and of k-means, where firmness is measured
log = logging.getLogger(__name__)


# The settings that decide how photographs are grouped, of those of `Facets`.
DECIDING = ("clusters", "components", "perplexity", "tsne", "subsample", "seed")


def find_components(means: Tensor, settings: Facets) -> Components:
    """Channel means [M, D] in their components: of their directions, but where the paper's t-SNE is clustered."""
    unit = settings.clusters != "embedding"
    return to_components(means, components=settings.components, unit=unit, seed=settings.seed)


def find_again(means: Tensor, settings: Facets) -> Tensor:
    """The components of slightly other channel means, [M, D] -> [M, P], as quickly as they will do for clusters."""
    if settings.clusters == "components":
        return reduce_quickly(means, components=settings.components, unit=True)
    return find_components(means, settings).reduced  # t-SNE starts from them, signs and all


def flatten(reduced: Tensor, settings: Facets, seed: int, stage: Stage | None = None) -> Tensor:
    """Components [M, P] -> t-SNE [M, 2]."""
    return embed(
        reduced,
        perplexity=settings.perplexity,
        tsne=settings.tsne,
        subsample=settings.subsample,
        seed=seed,
        stage=stage,
    )


@dataclass(frozen=True)
class Group:
    """M photographs in C clusters."""

    components: Components
    embedding: Tensor  # [M, 2]
    labels: Tensor  # [M] int64, the largest cluster 0
    centres: Tensor  # [C, P] in `space`
    firmness: Firmness
    in_embedding: bool  # they were looked for in the embedding, not among the components
    recalled: Mapping[str, bool]  # what of it came out of the cache

    @property
    def space(self) -> Tensor:
        """Where distances are taken: [M, P], what was clustered."""
        return self.embedding if self.in_embedding else self.components.reduced

    def place(self, means: Tensor) -> Tensor:
        """The cluster of other photographs, by the nearest centre: channel means [H, D] -> int64 [H]."""
        if not len(means):
            return torch.empty(0, dtype=torch.int64)
        points = self.components.place(means)
        if self.in_embedding:
            known, embedded = self.components.reduced.numpy(), self.embedding.double().numpy()
            points = torch.from_numpy(place(points.numpy(), known, embedded))
        return nearest_cluster(points, self.centres)


def group_photographs(
    seen: Survey,
    settings: Facets,
    cache: Cache | None = None,
    stage: Stage | None = None,
) -> Group:
    """Group what a layer says of M photographs into `settings.C` clusters, or as many as `choose_number` takes.

    Raises ValueError where the layer tells fewer photographs apart.
    """
    told = stage or (lambda doing, done: None)
    key: dict[str, object] = {
        "survey": seen.key,
        "settings": {name: getattr(settings, name) for name in DECIDING},
        "code": EMBEDDING_CODE,
        "versions": versions("scikit-learn", "numpy", "scipy", "openTSNE"),
    }
    told(f"embedding {len(seen.means):,} photographs (PCA)", None)
    components = find_components(seen.means, settings)
    embedding, embedding_recalled = recall(
        cache,
        "embedding",
        key,
        lambda: {"embedding": flatten(components.reduced, settings, settings.seed, stage)},
    )
    C = settings.C
    if C == "auto":
        choice = number_of_kinds(seen, settings, stage=stage, components=components)
        # That there are no kinds to be told apart has to be known of every picture: it goes to the terminal.
        log.log(logging.INFO if choice.kinds else logging.WARNING, "C=auto: %s", choice.reason)
        C = choice.best
    if (distinct := count_different(seen.means, C)) < C:
        raise ValueError(
            f"C={C} facets need at least as many different photographs; the layer tells {distinct} apart: "
            f"take C={distinct} or fewer, or more photographs"
        )

    def make() -> dict[str, Tensor]:
        told(f"clustering {len(seen.means):,} photographs", None)

        def flat(reduced: Tensor, seed: int) -> Tensor:
            return embedding["embedding"] if seed == settings.seed else flatten(reduced, settings, seed)

        clusters = find_clusters(settings.clusters, components.reduced, flat, C, seed=settings.seed)
        told("measuring how firm the facets are", None)

        def again(means: Tensor, seed: int) -> Tensor:
            return find_clusters(
                settings.clusters,
                find_again(means, settings),
                lambda points, other: flatten(points, settings, other),
                C,
                seed=seed,
                runs=RUNS_AGAIN,
                starts=STARTS_AGAIN,
            ).labels

        draws = Draws.affordable(seen.means.shape[1], cheap=settings.clusters == "components")
        firmness = measure_firmness(
            seen.means, clusters.labels, C, components.reduced, again, draws=draws, seed=settings.seed
        )
        return {"labels": clusters.labels, **firmness.tensors()}

    kept, clusters_recalled = recall(cache, "clusters", {**key, "C": C, "code": CLUSTERS_CODE}, make)
    in_embedding = settings.clusters == "embedding"
    space = embedding["embedding"] if in_embedding else components.reduced
    firmness = Firmness(kept["agreement"], kept["facets"], kept["stays"])
    recalled = {"embedding": embedding_recalled, "clusters": clusters_recalled}
    return Group(
        components,
        embedding["embedding"],
        kept["labels"],
        means_of(space, kept["labels"], C),
        firmness,
        in_embedding,
        recalled,
    )


def number_of_kinds(
    seen: Survey,
    settings: Facets,
    numbers: Sequence[int] = TRIED,
    *,
    stage: Stage | None = None,
    components: Components | None = None,
) -> Choice:
    """How many kinds of photographs the layer tells apart, by `choose_number` among the components."""
    components = find_components(seen.means, settings) if components is None else components

    def again(rows: Tensor) -> Tensor:
        return find_again(seen.means[rows], settings)

    return choose_number(components.reduced, again, numbers, seed=settings.seed, stage=stage)


def recall(
    cache: Cache | None, kind: str, key: Mapping[str, object], make: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], bool]:
    """Tensors out of the cache, or made and kept there: (tensors, whether they were there)."""
    if cache is None:
        return make(), False
    fetched = cache.fetch(kind, key, make)
    return fetched.tensors, not fetched.made
