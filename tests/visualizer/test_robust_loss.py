"""The properties that Barron (CVPR 2019, arXiv:1701.03077) states of his loss and its density, at all shapes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mindseye.visualizer.distance import AdaptiveDistance, log_partition, negative_log_likelihood, rho

GENERATOR = torch.Generator().manual_seed(0)
COUNT = 20_000
SHAPES = torch.cat(
    [
        torch.linspace(-16, 3, COUNT - 6, dtype=torch.float64),
        torch.tensor([-math.inf, -2.0, 0.0, 1.0, 2.0, 4.0], dtype=torch.float64),
    ]
)
SCALES = torch.exp(4 * torch.randn(COUNT, dtype=torch.float64, generator=GENERATOR).clamp(-2, 2))
X = SCALES * torch.randn(COUNT, dtype=torch.float64, generator=GENERATOR) * 10


def slopes(x, b, r):
    """∂ρ/∂x, ∂ρ/∂b, ∂ρ/∂r."""
    inputs = [value.clone().requires_grad_() for value in (x, b, r)]
    return torch.autograd.grad(rho(*inputs).sum(), inputs)


@pytest.fixture(scope="module")
def everywhere():
    return slopes(X, SHAPES, SCALES)


def test_no_value_and_no_slope_is_anything_but_a_number(everywhere):
    assert rho(X, SHAPES, SCALES).isfinite().all()
    finite = SHAPES.isfinite()
    assert all(slope[finite].isfinite().all() for slope in everywhere)
    assert everywhere[0].isfinite().all()


def test_the_loss_grows_with_the_distance_and_falls_with_the_scale(everywhere):
    of_x, _, of_r = everywhere
    assert (of_x * X.sign() >= 0).all()
    assert (of_r <= 0).all()


def test_the_loss_grows_with_the_shape():
    finite = SHAPES.isfinite()
    for step in (1e-3, 0.1, 1.0):
        more = rho(X[finite], SHAPES[finite] + step, SCALES[finite])
        assert (more >= rho(X[finite], SHAPES[finite], SCALES[finite]) * (1 - 1e-12)).all()


def test_below_2_no_slope_is_steeper_than_one_over_the_scale_times_its_bound(everywhere):
    """|∂ρ/∂x| ≤ 1/r · ((b−2)/(b−1))^((b−1)/2) for b ≤ 1, and ≤ |x|/r² for b ≤ 2 (Barron's appendix)."""
    of_x = everywhere[0].abs()
    gentle = SHAPES < 1
    b = SHAPES[gentle & SHAPES.isfinite()]
    bound = ((b - 2) / (b - 1)) ** ((b - 1) / 2) / SCALES[gentle & SHAPES.isfinite()]
    assert (of_x[gentle & SHAPES.isfinite()] <= bound * (1 + 1e-9)).all()
    below = SHAPES <= 2
    assert (of_x[below] <= X[below].abs() / SCALES[below] ** 2 * (1 + 1e-9)).all()
    at_infinity = -math.inf == SHAPES
    assert (of_x[at_infinity] <= math.exp(-0.5) / SCALES[at_infinity] * (1 + 1e-9)).all()


def test_below_0_the_loss_is_bounded():
    """By (b − 2)/b, which a distance without end approaches."""
    b = torch.tensor([-0.5, -1.0, -2.0, -8.0, -100.0], dtype=torch.float64)
    far = rho(torch.full_like(b, 1e12), b, 1.0)
    assert torch.allclose(far, (b - 2) / b, rtol=1e-2)
    below = SHAPES < 0
    limit = torch.where(-math.inf == SHAPES, torch.ones_like(SHAPES), (SHAPES - 2) / SHAPES)
    assert (rho(X, SHAPES, SCALES)[below] <= limit[below] * (1 + 1e-9)).all()


@pytest.mark.parametrize("times", [1e-3, 0.1, 7.0, 1e4])
def test_distance_and_scale_in_another_unit_are_the_same_loss(times):
    assert torch.allclose(rho(times * X, SHAPES, times * SCALES), rho(X, SHAPES, SCALES), rtol=1e-9)


def test_near_the_origin_every_shape_is_the_parabola():
    x = SCALES * 0.02 * (2 * torch.rand(COUNT, dtype=torch.float64, generator=GENERATOR) - 1)
    assert torch.allclose(rho(x, SHAPES, SCALES), 0.5 * (x / SCALES) ** 2, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_of_number_stay_and_single_precision_keeps_its_digits(dtype):
    x, b, r = (value.to(dtype) for value in (X, SHAPES, SCALES))
    loss = rho(x, b, r)
    assert loss.dtype == dtype
    exact = rho(x.double(), b.double(), r.double())
    assert ((loss.double() - exact).abs() <= 1e-5 * exact.abs() + 1e-7).all()


def test_no_shape_within_a_hair_of_a_limit_jumps():
    """In float32 Barron's own formula loses every digit there."""
    x = torch.linspace(0, 10, 101)
    for limit in (0.0, 2.0):
        for step in (1e-7, 1e-6, 1e-5, 1e-4):
            for b in (limit - step, limit + step):
                assert torch.allclose(rho(x, b, 1.0), rho(x, limit, 1.0), rtol=5e-3, atol=1e-4), b


@pytest.mark.parametrize(
    ("b", "density"), [(0.0, stats.cauchy(scale=math.sqrt(2))), (2.0, stats.norm())], ids=["Cauchy", "normal"]
)
@pytest.mark.parametrize("r", [0.05, 1.0, 40.0])
def test_the_ends_are_the_cauchy_and_the_normal_density(b, density, r):
    x = np.linspace(-9, 9, 51)
    shape, scale = torch.tensor(b, dtype=torch.float64), torch.tensor(r, dtype=torch.float64)
    loss = negative_log_likelihood(torch.from_numpy(x * r), shape, scale).numpy()
    assert np.allclose(loss, -density.logpdf(x) + math.log(r), atol=1e-6)


@pytest.mark.parametrize("b", [0.001, 0.2, 0.9, 1.0, 1.5, 1.999])
def test_every_density_between_them_has_the_mass_of_one(b):
    """By the substitution x = tan u, which takes the heavy tail as it is."""
    u = torch.linspace(-math.pi / 2, math.pi / 2, 2_000_001, dtype=torch.float64)[1:-1]
    x = torch.tan(u)
    shape = torch.tensor(b, dtype=torch.float64)
    density = torch.exp(-negative_log_likelihood(x, shape, torch.tensor(1.0, dtype=torch.float64)))
    assert torch.trapezoid(density * (1 + x**2), u).item() == pytest.approx(1, abs=1e-5)


def test_the_partition_function_falls_with_the_shape():
    """From π√2 to √(2π): a heavier tail has more mass."""
    values = log_partition(torch.linspace(0, 2, 4001, dtype=torch.float64))
    assert (values.diff() < 0).all()


@pytest.mark.parametrize("shape", [0.01, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_scale_and_shape_start_where_they_are_told_and_stay_where_they_may_not_move(scale, shape):
    adaptive = AdaptiveDistance(3, scale=scale, shape=shape, trainable=False)
    assert adaptive.r.tolist() == pytest.approx([scale] * 3, rel=1e-5)
    assert adaptive.b.tolist() == pytest.approx([shape] * 3, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in adaptive.parameters())


@pytest.mark.parametrize(
    ("samples", "shape"), [(stats.cauchy(scale=math.sqrt(2)), 0.0), (stats.norm(), 2.0)], ids=["Cauchy", "normal"]
)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_samples_of_a_known_density_are_found_again(samples, shape, scale):
    x = torch.from_numpy(samples.ppf((np.arange(400) + 0.5) / 400)) * scale
    fitted = AdaptiveDistance(1).double()
    optimizer = torch.optim.LBFGS(fitted.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        mean = fitted(x[None]).mean()
        mean.backward()
        return mean

    optimizer.step(loss)
    assert fitted.r.item() == pytest.approx(scale, rel=0.1)
    assert fitted.b.item() == pytest.approx(shape, abs=0.15)
