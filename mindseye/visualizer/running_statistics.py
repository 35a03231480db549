"""DeepInversion's way, to compare with: pictures are held to what BatchNorms have seen of all photographs.

Yin et al., Dreaming to Distill, CVPR 2020: R = Σ_l m_l·(‖μ̂_l − running mean‖ + ‖σ̂²_l − running variance‖) over the
inputs of every BatchNorm, the first one m times. Written from that formula.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mindseye.facets.way_statistics import moments
from mindseye.fields import Weight, check
from mindseye.networks.modules import every_module
from mindseye.networks.network import Network, check_network
from mindseye.visualizer.distance import AdaptiveDistance
from mindseye.visualizer.objective import cosine, take_channels
from mindseye.visualizer.terms import Adaptive, LossTerms, Seen

SMALL = 1e-12


def batch_norms(network: Network) -> list[nn.BatchNorm2d]:
    """Those of a network's BatchNorms that keep running statistics, in the order of its modules."""
    return [
        module
        for _, module in every_module(network.body)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
    ]


def statistics_distance(network: Network, images: Tensor, first: float = 10.0) -> Tensor:
    """R of each picture: images [c, ch, S, S] in 0..1 -> [c], which go through the whole network.

    Means and variances are over one picture's positions, not over a batch: facets would mix. first: m of the first
    BatchNorm that the pictures reach; every other's is 1.
    """
    entering: list[tuple[nn.BatchNorm2d, Tensor]] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        entering.append((module, arguments[0]))

    handles = [nn.Module.register_forward_pre_hook(module, keep) for module in batch_norms(network)]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    distance = images.new_zeros(len(images))
    for place, (module, maps) in enumerate(entering):
        mean, std = moments(maps)
        assert module.running_mean is not None
        assert module.running_var is not None
        off = _norm(mean - module.running_mean) + _norm(std.square() - module.running_var)
        distance = distance + (first if place == 0 else 1.0) * off
    return distance


def _norm(x: Tensor) -> Tensor:
    return (x.square().sum(dim=1) + SMALL).sqrt()


@dataclass(frozen=True, eq=False)
class RunningStatistics:
    """−dm·cosine of the top-k maps + weight·R: a `LossFunction`.

    network: whose BatchNorms the pictures are held to, the one that draws; it is a copy of its own, which looks at the
        pictures a second time at every step, as no view has moved them. Raises ValueError where it has no BatchNorm.
    dm: weight of the cosine of the facet's top-k maps to its target, which stands where DeepInversion has its class.
    weight: of R, the distance to the running statistics. first: times which the first BatchNorm counts.
    """

    network: Network
    dm: Weight = 8.0
    weight: Weight = 0.01
    first: Weight = 10.0

    def __post_init__(self) -> None:
        check_network(self.network)
        if not batch_norms(self.network):
            raise ValueError(f"{self.network.name} has no BatchNorm whose statistics there are")
        for name in ("dm", "weight", "first"):
            check(name, getattr(self, name), Weight)

    @property
    def gain(self) -> float:
        """It knows no exaggeration."""
        return 1.0

    @property
    def adaptive(self) -> Adaptive:
        """It has no distance to be robust about."""
        return "fixed"

    def adaptive_distance(self, facets: int) -> AdaptiveDistance:
        """An (r, b) that nothing uses."""
        return AdaptiveDistance(facets, trainable=False)

    def weights(self, now: Mapping[str, float], facets: int) -> dict[str, float]:
        """What the terms are multiplied by."""
        return {"dm": -self.dm, "matching": self.weight}

    def __call__(self, seen: Seen) -> LossTerms:
        """DM and R; the term `matching` is R."""
        dm = cosine(take_channels(seen.activation, seen.top_k), take_channels(seen.target, seen.top_k))
        distance = statistics_distance(self.network.to(seen.images.device), seen.images, self.first)
        return LossTerms(dm=dm, matching=distance, total=self.weight * distance - self.dm * dm)


