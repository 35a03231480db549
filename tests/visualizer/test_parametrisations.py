"""What lucid and captum hold their image parametrisations to: they can become any picture, at a known pace."""

import math

import pytest
import torch

from mindseye.visualizer.canvas import MARGIN, FourierCanvas, MacoCanvas, PixelCanvas, spectral_amplitude
from mindseye.visualizer.transformations import Transformations, view

CANVASES = (PixelCanvas, FourierCanvas, MacoCanvas)


def picture(C=1, ch=3, side=32, seed=0):
    """Smooth colours in 0.1..0.9: [C, ch, side, side]."""
    coarse = torch.rand(C, ch, 5, 5, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.8 * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(("canvas", "steps"), [(PixelCanvas, 100), (FourierCanvas, 1000)])
def test_gradient_descent_from_noise_arrives_at_any_picture(canvas, steps):
    """lucid's: Adam with a rate of 0.05, within 1,000 steps a mean difference below 0.01."""
    wanted = picture(side=16)
    made = canvas(wanted, wanted[:, None], init="noise")
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        away = made() - wanted
        if away.abs().mean() < 0.01:
            return
        away.square().sum().backward()
        optimizer.step()
    raise AssertionError(f"still {away.abs().mean():.3f} away after {steps} steps")


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("side", [1, 2, 3, 17, 64])
@pytest.mark.parametrize("ch", [1, 3, 4])
def test_of_any_side_and_number_of_channels_they_are_pictures_with_slopes(canvas, side, ch):
    first = picture(2, ch, side)
    made = canvas(first, torch.stack([first, first.flip(3)], dim=1))
    shown = made()
    assert shown.shape == (2, ch, side, side)
    assert shown.min() >= 0
    assert shown.max() <= 1
    shown.sum().backward()
    [parameter] = made.parameters()
    assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("side", [2, 3, 4, 7, 224])
def test_a_decay_of_1_scales_frequencies_as_lucid_does(side):
    """By 1/max(f, 1/side), f in cycles per pixel, up to one factor for all."""
    fy, fx = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    theirs = 1 / (fy[:, None] ** 2 + fx[None] ** 2).sqrt().clamp(min=1 / side)
    ours = spectral_amplitude(side, 1.0)
    assert torch.allclose(ours / ours[0, 0], theirs / theirs[0, 0], rtol=1e-5)


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas])
def test_the_picture_that_it_begins_with_is_given_back_inside_the_margin(canvas):
    first = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    expected = first if canvas is PixelCanvas else first.clamp(MARGIN, 1 - MARGIN)
    assert torch.allclose(canvas(first, first[:, None], init="facet")(), expected, atol=2e-6)


@pytest.mark.parametrize("canvas", [FourierCanvas, MacoCanvas])
def test_one_coefficient_is_one_wave_over_the_whole_picture(canvas):
    """So a step changes a frequency everywhere, and no pixel by itself."""
    first = torch.full((1, 1, 32, 32), 0.5)
    made = canvas(first, first[:, None])
    [parameter] = made.parameters()
    spectrum = torch.zeros(1, 1, 32, 17, dtype=torch.complex64)
    spectrum[0, 0, 0, 3] = 1
    wave = made.from_spectrum(spectrum)[0, 0]
    expected = 2 * torch.cos(2 * math.pi * 3 * torch.arange(32) / 32)
    assert torch.allclose(wave, expected.expand(32, 32), atol=1e-5)
    assert parameter.shape[:4] == spectrum.shape


def turned(image, degrees):
    """Through the view of a rotation alone."""
    angle = torch.tensor(math.radians(degrees))
    matrix = torch.stack([angle.cos(), -angle.sin(), angle * 0, angle.sin(), angle.cos(), angle * 0])
    return view(image, matrix.reshape(1, 2, 3))


@pytest.mark.parametrize("side", [16, 17])
def test_a_quarter_turn_moves_every_pixel_to_its_place(side):
    image = picture(side=side)
    assert torch.allclose(turned(image, 90), image.rot90(1, (2, 3)), atol=1e-5) or torch.allclose(
        turned(image, 90), image.rot90(-1, (2, 3)), atol=1e-5
    )
    assert torch.allclose(turned(turned(image, 90), -90), image, atol=1e-5)
    assert torch.allclose(turned(image, 180), image.flip(2, 3), atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (0, -2), (5, 4)])
def test_a_shift_by_whole_pixels_is_exact_and_borders_reflect(dx, dy):
    image = picture(side=20)
    matrix = torch.tensor([[[1.0, 0, 2 * dx / 20], [0, 1, 2 * dy / 20]]])
    shown = view(image, matrix)
    padded = torch.nn.functional.pad(image, (6, 6, 6, 6), mode="reflect")
    inside = slice(6, 14)
    expected = padded[..., 6 + dy : 26 + dy, 6 + dx : 26 + dx]
    assert torch.allclose(shown[..., inside, inside], expected[..., inside, inside], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_view_of_one_colour_is_that_colour(seed):
    drawn = Transformations(jitter=0.3, scale=0.5, rotation=90).draw(4, torch.Generator().manual_seed(seed))
    ones = torch.ones(4, 3, 12, 12)
    assert torch.allclose(view(ones, drawn), ones, atol=1e-5)


def test_a_view_s_slopes_are_its_differences():
    image = picture(2, 1, 6).double().requires_grad_()
    drawn = Transformations().draw(2, torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(lambda x: view(x, drawn), image)


def test_draws_fill_their_ranges_and_keep_them():
    drawn = Transformations(jitter=0.05, scale=0.2, rotation=10).draw(20_000, torch.Generator().manual_seed(0))
    zoom = 1 / drawn[:, 0, :2].norm(dim=1)
    angle = torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]).rad2deg()
    shift = drawn[:, :, 2] / 2
    for values, least, most in ((zoom, 0.8, 1.2), (angle, -10, 10), (shift[:, 0], -0.05, 0.05)):
        assert values.min() == pytest.approx(least, abs=0.01 * (most - least))
        assert values.max() == pytest.approx(most, abs=0.01 * (most - least))
        assert values.mean() == pytest.approx((least + most) / 2, abs=0.02 * (most - least))
