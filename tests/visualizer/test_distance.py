"""Barron's loss held against its paper (arXiv:1701.03077), not against this code."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from mindseye.visualizer.distance import AdaptiveDistance, log_partition, negative_log_likelihood, rho

x64 = torch.linspace(-8, 8, 101, dtype=torch.float64)


@pytest.mark.parametrize("r", [0.3, 1.0, 5.0])
def test_limits(r):
    z = (x64 / r) ** 2
    assert torch.allclose(rho(x64, 2.0, r), z / 2)
    assert torch.allclose(rho(x64, 0.0, r), torch.log(z / 2 + 1))
    assert torch.allclose(rho(x64, -math.inf, r), 1 - torch.exp(-z / 2))
    assert torch.allclose(rho(x64, 1.0, r), torch.sqrt(z + 1) - 1)  # Charbonnier
    assert torch.allclose(rho(x64, -2.0, r), 2 * z / (z + 4))  # Geman-McClure


@pytest.mark.parametrize("limit", [0.0, 2.0])
@pytest.mark.parametrize("step", [1e-5, -1e-5, 2e-6])
def test_the_limits_are_approached_smoothly(limit, step):
    assert torch.allclose(rho(x64, limit + step, 1.0), rho(x64, limit, 1.0), rtol=1e-3, atol=1e-3)


def test_the_steepest_shape_has_its_limit():
    z = x64**2
    for shape in (math.inf, torch.tensor(math.inf), torch.full((101,), math.inf, dtype=torch.float64)):
        assert torch.equal(rho(x64, shape, 1.0), torch.expm1(z / 2))
    near = x64.abs() < 3
    assert torch.allclose(rho(x64[near], 1e9, 1.0), torch.expm1(z[near] / 2), rtol=1e-6)
    # every shape in one call, each with its own loss, and slopes without NaN where the limit not taken overflows
    x = torch.tensor([100.0, 1.0, 100.0, 100.0, 100.0], requires_grad=True)
    shapes = torch.tensor([1.0, math.inf, -math.inf, 0.0, 2.0])
    loss = rho(x, shapes, 0.5)
    assert torch.equal(loss, torch.stack([rho(one, b, 0.5) for one, b in zip(x, shapes, strict=True)]))
    loss.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("b", [2.001, 4.0, math.inf, -1e-3, -2.0, -math.inf])
def test_shapes_without_a_density_that_is_known_are_refused(b):
    """A clamp would give a density that does not integrate to 1."""
    for shapes in (torch.tensor(b), torch.tensor([0.5, b, 1.0], dtype=torch.float64), torch.tensor([[b]])):
        for ask in (log_partition, lambda one: negative_log_likelihood(one, one, torch.ones_like(one))):
            with pytest.raises(ValueError, match=r"^b must be 0 to 2, where Z.b. is known, not "):
                ask(shapes)
    assert log_partition(torch.tensor([math.nan, 1.0])).isnan().tolist() == [True, False]


def test_very_negative_shapes_approach_the_last_limit():
    assert torch.allclose(rho(x64, -1e7, 1.0), rho(x64, -math.inf, 1.0), atol=1e-5)


@pytest.mark.parametrize("b", [0.0, 0.3, 1.0, 1.7, 2.0, -3.0])
def test_properties_of_the_loss(b):
    """Zero at zero, even, growing with |x|, growing with b, curvature 1/r² at the origin."""
    loss = rho(x64, b, 2.0)
    assert rho(torch.zeros(1), b, 2.0).item() == 0
    assert torch.allclose(loss, rho(-x64, b, 2.0))
    assert (rho(x64[51:], b, 2.0).diff() > 0).all()
    assert (rho(x64, b + 0.1, 2.0) >= loss - 1e-12).all()
    tiny = torch.tensor([1e-4], dtype=torch.float64)
    assert rho(tiny, b, 2.0).item() == pytest.approx(0.5 * (1e-4 / 2) ** 2, rel=1e-4)


def test_derivatives_against_finite_differences():
    """In float64, in all three arguments, at many shapes inside (0, 2) and on both limits' doorsteps."""
    b = torch.tensor([0.001, 0.05, 0.5, 1.0, 1.5, 1.95, 1.999], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 0.3], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([0.2, 0.5, 1.0, 2.0, 0.1, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rho, (x, b, r))
    assert torch.autograd.gradcheck(negative_log_likelihood, (x, b, r))


@pytest.mark.parametrize("b", [0.0, 2.0, 0.5])
def test_no_gradient_is_nan_at_the_limits(b):
    x = torch.tensor([0.0, 1.0, 100.0], requires_grad=True)
    rho(x, b, 0.05).sum().backward()
    assert x.grad.isfinite().all()


def density(x, b):
    return math.exp(-rho(torch.tensor(x, dtype=torch.float64), b, 1.0).item())


@pytest.mark.parametrize("b", [0.05, 0.1234, 0.5, 0.7777, 1.0, 1.3333, 1.9, 1.999])
def test_partition_function_against_numerical_integration(b):
    cuts = [0, 1, 10, 100, 1e3, 1e5, 1e8]
    whole = 2 * sum(quad(density, a, c, args=(b,), limit=400, epsabs=1e-11)[0] for a, c in pairwise(cuts))
    assert log_partition(torch.tensor(b, dtype=torch.float64)).item() == pytest.approx(math.log(whole), abs=1e-6)


def test_partition_function_at_its_ends():
    ends = log_partition(torch.tensor([0.0, 2.0], dtype=torch.float64)).exp()
    assert ends.tolist() == pytest.approx([math.pi * math.sqrt(2), math.sqrt(2 * math.pi)], abs=1e-6)


def test_partition_function_has_a_smooth_derivative():
    """Continuous across the knots of its table, and right against finite differences."""
    b = torch.linspace(0.01, 1.95, 3001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_partition(b).sum(), b)
    h = 1e-5
    numeric = (log_partition(b.detach() + h) - log_partition(b.detach() - h)) / (2 * h)
    assert torch.allclose(slope, numeric, atol=1e-5)
    # No jump where one interval meets the next: neighbouring changes of the slope are alike.
    change = slope.diff()
    assert (change.diff().abs() < 0.05 * change.abs().max()).all()


@pytest.mark.parametrize(("b", "r"), [(1.6, 0.7), (1.0, 2.0), (0.3, 0.5)])
def test_trained_scale_and_shape_recover_a_known_distribution(b, r):
    """Sampled by inverting the cumulative density; the maximum-likelihood (r, b) must come near those sampled from."""
    grid = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    cumulative = torch.exp(-rho(grid, b, 1.0)).cumsum(0).numpy()
    u = np.random.default_rng(0).random(20_000) * cumulative[-1]
    samples = torch.from_numpy(np.interp(u, cumulative, grid.numpy()) * r)
    fitted = AdaptiveDistance(1).double()
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        fitted(samples[None, :]).mean().backward()
        optimizer.step()
    assert fitted.r.item() == pytest.approx(r, rel=0.08)
    assert fitted.b.item() == pytest.approx(b, abs=0.1)


def test_without_the_logarithms_the_scale_would_run_away():
    """Why AD is a likelihood: of ρ alone, a larger r is always better."""
    r = torch.tensor([0.5, 1.0, 2.0, 100.0])
    b, x = torch.tensor(1.0), torch.tensor(1.0)
    assert (rho(x, b, r).diff() < 0).all()
    likelihood = negative_log_likelihood(x, b, r)
    assert likelihood.argmin().item() not in (0, 3)


def test_every_facet_has_its_own_scale_and_shape():
    adaptive = AdaptiveDistance(3)
    adaptive(torch.tensor([0.1, 1.0, 5.0]))[1].backward()
    assert adaptive.free_r.grad[0] == adaptive.free_r.grad[2] == 0
    assert adaptive.free_r.grad[1] != 0
    with torch.no_grad():
        adaptive.free_r += 1
    part = adaptive(torch.tensor([5.0]), slice(2, 3))
    assert torch.equal(part, adaptive(torch.tensor([0.1, 1.0, 5.0]))[2:])
    adaptive.reset_()
    assert torch.allclose(adaptive.r, torch.ones(3))
    assert torch.allclose(adaptive.b, torch.ones(3))


@pytest.mark.parametrize(("scale", "shape"), [(0.05, 1.0), (1.0, 0.0), (1.0, 2.0)])
def test_starts_outside_the_range_are_refused(scale, shape):
    with pytest.raises(ValueError, match=r"^(scale|shape) must be above .*, not "):
        AdaptiveDistance(1, scale=scale, shape=shape)


@pytest.mark.parametrize("shape", [(40,), (5, 33)])
def test_a_facet_s_distance_is_the_same_in_any_batch(shape):
    """To the bit, backwards too."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3
    adaptive = AdaptiveDistance(shape[0])
    with torch.no_grad():
        adaptive.free_r.add_(torch.linspace(-1, 1, shape[0]))
    whole = x.clone().requires_grad_()
    losses = adaptive(whole)
    losses.sum().backward()
    for size in (1, 3):
        for first in range(0, shape[0] - size, size):
            facets = slice(first, first + size)
            part = x[facets].clone().requires_grad_()
            answer = adaptive(part, facets)
            answer.sum().backward()
            assert torch.equal(answer, losses[facets])
            assert torch.equal(part.grad, whole.grad[facets])
