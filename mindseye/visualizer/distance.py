"""Barron's general and adaptive robust loss (CVPR 2019, arXiv:1701.03077), in the paper's symbols: scale r, shape b.

Barron writes c for r and α for b.
"""

import functools
import math

import torch
from torch import Tensor, nn

SHAPE_RANGE = (0.001, 1.999)  # where b is trained: Z(b) exists for b >= 0 and ρ is smooth between the limits 0 and 2
SMALLEST_SCALE = 0.05  # of a relative distance: below it the logarithm would reward ever finer agreement without end
LARGEST_SCALE = 500.0  # its softplus, backwards, still fits a float
_KNOTS = 1025


def rho(x: Tensor, b: Tensor | float, r: Tensor | float) -> Tensor:
    """The general robust loss ρ(x, b, r) = |b−2|/b · (((x/r)²/|b−2| + 1)^{b/2} − 1), at any shape, broadcast.

    Its limits, which are taken where b is exactly there or where the formula would lose its digits:
    b = 2: ½(x/r)²; b = 0: log(½(x/r)² + 1); b = −∞: 1 − exp(−½(x/r)²); b = +∞: exp(½(x/r)²) − 1. `r` > 0.
    """
    b = torch.as_tensor(b, dtype=x.dtype, device=x.device)
    z = (x / r) ** 2
    # Keep the formula away from its poles in both directions, else the branch not taken would put NaN in the gradient.
    near_two, near_zero = (b - 2).abs() < 1e-9, b.abs() < 1e-9
    limit = near_two | near_zero | b.isinf()
    loss = torch.where(near_two, z / 2, _general_rho(z, torch.where(limit, torch.ones_like(b), b)))
    loss = torch.where(near_zero, torch.log1p(z / 2), loss)
    loss = torch.where(b == -math.inf, -torch.expm1(-z / 2), loss)
    steepest = torch.where(b == math.inf, z, torch.zeros_like(z))  # elsewhere it would overflow
    return torch.where(b == math.inf, torch.expm1(steepest / 2), loss)


def _general_rho(z: Tensor, b: Tensor) -> Tensor:
    """ρ at z = (x/r)² for b away from its limits."""
    beta = (b - 2).abs()
    # expm1 and log1p: near b = 0 the bracket is the small difference of two numbers near 1.
    return beta / b * torch.expm1(b / 2 * torch.log1p(z / beta))


def log_partition(b: Tensor) -> Tensor:
    """log Z(b), Z(b) = ∫ exp(−ρ(x, b, 1)) dx over the real line, for b in [0, 2]; to 1e-6, with a continuous slope.

    Cubic Hermite interpolation of a table of values and slopes made once by quadrature. Z(0) = π√2, Z(2) = √(2π).
    The table is even in w, b = 2 − 2w⁴, since log Z behaves as (2−b)·log(2−b) near b = 2, where no polynomial in b
    follows it.

    Raises ValueError for b outside of [0, 2]: below, no density has this loss, and above there is no table.
    """
    outside = b.detach()[(b < 0) | (b > 2)]  # NaN is neither, and gives NaN
    if outside.numel():
        raise ValueError(f"b must be 0 to 2, where Z(b) is known, not {float(outside[0]):g}")
    return _log_partition(b)


def _log_partition(b: Tensor) -> Tensor:
    """The same without looking at b, for which a GPU would have to be waited for."""
    wide = torch.float32 if b.device.type == "mps" else torch.float64  # Metal has no float64
    w = ((2 - b.to(wide)).clamp(1e-12, 2) / 2) ** 0.25  # the clamp keeps the slope finite at b = 2
    position = w * (_KNOTS - 1)
    left = position.detach().floor().long().clamp(0, _KNOTS - 2)  # NaN, too, finds a place, and gives NaN
    t = position - left
    a0, a1, a2, a3 = _partition_table_on(b.device, wide)[:, left]
    return (((a3 * t + a2) * t + a1) * t + a0).to(b.dtype)


@functools.lru_cache(maxsize=1)
def _partition_table() -> Tensor:
    """Coefficients of 1, t, t², t³ between evenly spaced w in [0, 1], t = 0..1 from one to the next: float64 [4, …].

    The cubic that has the values and slopes of log Z at both ends (Hermite).

    Double-exponential quadrature x = sinh(π/2·sinh u): it takes the algebraic tail at b = 0 (1/x²) and the Gaussian at
    b = 2 alike, and the trapezoid rule then converges exponentially.
    """
    u = torch.linspace(-4, 4, 2001, dtype=torch.float64)
    x = torch.sinh(math.pi / 2 * torch.sinh(u))
    weight = torch.cosh(math.pi / 2 * torch.sinh(u)) * math.pi / 2 * torch.cosh(u) * (u[1] - u[0])
    w = torch.linspace(0, 1, _KNOTS, dtype=torch.float64)
    b = 2 - 2 * w**4
    # Some knots at a time: all at once would hold 300 MB, the most that a small fit ever does.
    each = [_partition_and_slope(some[:, None], x, weight) for some in b.split(64)]
    values, slopes = (torch.cat(parts) for parts in zip(*each, strict=True))
    slopes = slopes * (-8 * w**3) / (_KNOTS - 1)
    rise, d0, d1 = values.diff(), slopes[:-1], slopes[1:]
    return torch.stack([values[:-1], d0, 3 * rise - 2 * d0 - d1, d0 + d1 - 2 * rise])


def _partition_and_slope(b: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """log Z and ∂ log Z/∂b at shapes b [n, 1], by the quadrature at x with its weights, [P] each: [n] twice."""
    values = (torch.exp(-rho(x, b, 1.0)) * weight).sum(dim=1).log()
    # ∂ρ/∂b has limits of its own at both ends, so the slope is taken just inside.
    inside = b.clamp(1e-5, 2 - 1e-9).requires_grad_()
    with torch.enable_grad():
        logs = (torch.exp(-rho(x, inside, 1.0)) * weight).sum(dim=1).log()
        (slope,) = torch.autograd.grad(logs.sum(), inside)
    return values, slope[:, 0]


@functools.lru_cache(maxsize=8)
def _partition_table_on(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The table where it is needed, copied there once and not at every step."""
    return _partition_table().to(device, dtype)


def negative_log_likelihood(x: Tensor, b: Tensor, r: Tensor) -> Tensor:
    """ρ(x, b, r) + log r + log Z(b), elementwise: what trainable (r, b) need (without the logarithms r → ∞ wins).

    Raises ValueError for b outside of [0, 2]: see `log_partition`.
    """
    return rho(x, b, r) + torch.log(r) + log_partition(b)


def _negative_log_likelihood(x: Tensor, b: Tensor, r: Tensor) -> Tensor:
    """The same for b that is known to be in SHAPE_RANGE, away from the limits."""
    return _general_rho((x / r) ** 2, b) + torch.log(r) + _log_partition(b)


class AdaptiveDistance(nn.Module):
    """Barron's loss with its own scale and shape for each of C = `facets` facets.

    `r` [C] above `smallest_scale` and `b` [C] inside (0.001, 1.999) are softplus and sigmoid of free parameters, which
    start at r = `scale` and b = `shape`. forward(x [c]) -> [c] is the negative log-likelihood. Where `trainable` is
    False both stay where they start. Raises ValueError for a start outside of these ranges.
    """

    def __init__(
        self,
        facets: int,
        *,
        scale: float = 1.0,
        shape: float = 1.0,
        smallest_scale: float = SMALLEST_SCALE,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        low, high = SHAPE_RANGE
        if not LARGEST_SCALE >= scale > smallest_scale > 0:
            raise ValueError(f"scale must be above {smallest_scale} and {LARGEST_SCALE:g} or less, not {scale}")
        if not low < shape < high:
            raise ValueError(f"shape must be above {low} and below {high}, not {shape}")
        self.smallest_scale = smallest_scale
        start_r = math.log(math.expm1(scale - smallest_scale))
        start_b = math.log((shape - low) / (high - shape))
        self.start = (start_r, start_b)
        self.free_r = nn.Parameter(torch.full((facets,), start_r), requires_grad=trainable)
        self.free_b = nn.Parameter(torch.full((facets,), start_b), requires_grad=trainable)

    @property
    def r(self) -> Tensor:
        """The scales [C]."""
        return self.smallest_scale + nn.functional.softplus(self.free_r)

    @property
    def b(self) -> Tensor:
        """The shapes [C]."""
        low, high = SHAPE_RANGE
        return low + (high - low) * torch.sigmoid(self.free_b)

    @torch.no_grad()
    def reset_(self) -> None:
        """Back to where (r, b) started."""
        self.free_r.fill_(self.start[0])
        self.free_b.fill_(self.start[1])

    def forward(self, x: Tensor, facets: slice = slice(None)) -> Tensor:
        """Distances x [c] or [c, D] of the facets `facets` -> negative log-likelihoods of the same shape."""
        r, b = self.r[facets].expand(len(x)), self.b[facets].expand(len(x))
        if x.device.type == "cpu" and x.numel() >= 16:
            # A facet's numbers give the same bits in any batch: torch computes long runs by other instructions.
            each = zip(x, b, r, strict=True)
            return torch.stack([_negative_log_likelihood(*facet) for facet in each])
        if x.ndim == 2:
            r, b = r[:, None], b[:, None]
        return _negative_log_likelihood(x, b, r)
