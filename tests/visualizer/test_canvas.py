import pytest
import torch

from mindseye.visualizer.canvas import (
    FAINTEST,
    MARGIN,
    STEEP,
    ColourStatistics,
    FourierCanvas,
    MacoCanvas,
    PixelCanvas,
    safe_logit,
    spectral_amplitude,
)

SIDES = [16, 17, 1, 2]


def pictures(C=3, ch=3, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(C, ch, 4, 4, generator=generator)
    large = torch.nn.functional.interpolate(smooth, size=(side, side), mode="bilinear")
    return large * (1 - 2 * MARGIN) + MARGIN


def photographs(C=3, N=4, ch=3, side=16, seed=1):
    return pictures(C * N, ch, side, seed).reshape(C, N, ch, side, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ch", [1, 3, 6])
@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas])
def test_a_canvas_gives_back_any_picture_put_into_it(canvas, ch, side):
    first, other = pictures(ch=ch, side=side), pictures(ch=ch, side=side, seed=5)
    made = canvas(first, photographs(ch=ch, side=side), init="facet")
    assert torch.allclose(made(), first, atol=1e-5)
    made.encode(other)
    assert torch.allclose(made(), other, atol=1e-5)
    assert made().shape == (3, ch, side, side)


def test_pictures_beyond_the_margin_come_back_at_it():
    made = FourierCanvas(torch.zeros(1, 3, 8, 8), photographs(1, side=8), init="facet")
    assert torch.allclose(made(), torch.full((1, 3, 8, 8), MARGIN), atol=1e-5)


@pytest.mark.parametrize("side", [16, 17])
def test_maco_keeps_the_magnitudes_of_the_photographs_whatever_is_put_in(side):
    given = photographs(side=side)
    made = MacoCanvas(pictures(side=side), given)
    expected = torch.stack([made.to_spectrum(made.unsquash(facet)).abs().mean(dim=0) for facet in given])
    made.encode(pictures(side=side, seed=9))
    with torch.no_grad():
        made.phase += torch.rand_like(made.phase)
    inside = slice(1, (side - 1) // 2)  # the mean and the highest frequency are real: their phase is a sign
    spectrum = made.to_spectrum(made.latent())
    assert torch.allclose(spectrum.abs()[:, :, 1:, inside], expected[:, :, 1:, inside], rtol=1e-2, atol=1e-4)


def test_maco_is_a_photograph_again_where_only_that_one_is_given():
    drawn = pictures(C=2)
    assert torch.allclose(MacoCanvas(drawn, drawn[:, None])(), drawn, atol=1e-4)


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas, MacoCanvas])
def test_part_of_the_facets_is_part_of_the_whole(canvas):
    made = canvas(pictures(), photographs())
    assert torch.allclose(made(slice(1, 3)), made()[1:3], atol=1e-6)


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas, MacoCanvas])
def test_a_facet_s_gradient_reaches_no_other_facet(canvas):
    made = canvas(pictures(), photographs())
    made()[1].square().sum().backward()
    [parameter] = made.parameters()
    assert parameter.grad[1].abs().sum() > 0
    assert parameter.grad[0].abs().sum() == parameter.grad[2].abs().sum() == 0


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.3])
@pytest.mark.parametrize("side", [32, 33])
def test_a_unit_step_of_the_spectrum_is_a_unit_step_of_the_picture(decay, side):
    """So a learning rate means the same at every resolution and decay."""
    spectrum = torch.randn(300, side, side // 2 + 1, 2, generator=torch.Generator().manual_seed(0))
    scaled = torch.view_as_complex(spectrum) * spectral_amplitude(side, decay)
    picture = torch.fft.irfft2(scaled, s=(side, side), norm="forward")
    assert picture.var().item() == pytest.approx(1, rel=0.15)


def test_colours_are_decorrelated_as_the_photographs_vary():
    """In the canvas's own coordinates the photographs' pixels have mean 0 and covariance 1."""
    images = photographs(side=32).flatten(0, 1)
    images[:, 1] = 0.7 * images[:, 0] + 0.3 * images[:, 1]
    colours = ColourStatistics.of(images)
    latent = torch.einsum(
        "xy,nyhw->nxhw", torch.linalg.inv(colours.root), safe_logit(images) - colours.mean[:, None, None]
    )
    flat = latent.transpose(0, 1).reshape(3, -1)
    assert flat.mean(dim=1).abs().max() < 1e-3
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(3), atol=1e-2)


def test_photographs_of_one_colour_leave_every_direction_trainable():
    colours = ColourStatistics.of(torch.full((2, 3, 4, 4), 0.5))
    assert torch.linalg.eigvalsh(colours.root).min() > 1e-2


def test_noise_start_is_grey_seeded_and_the_same_whatever_the_number_of_facets():
    few = PixelCanvas(pictures(2), photographs(2), init="noise", seed=1)()
    more = PixelCanvas(pictures(3), photographs(3), init="noise", seed=1)()
    assert torch.equal(few, more[:2])
    assert abs(few.mean().item() - 0.5) < 0.01
    assert 0.005 < few.std().item() < 0.015
    assert not torch.equal(few, PixelCanvas(pictures(2), photographs(2), init="noise", seed=2)())
    with pytest.raises(ValueError, match="facet, sketch, noise, photograph or an image"):
        PixelCanvas(pictures(1), photographs(1), init="grey")


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas])
def test_a_sketch_has_the_broad_forms_of_the_photographs_and_no_detail(canvas):
    """Of a wave of n cycles per image exp(−n²/2·6²) is left: 0.95 of two cycles, nothing of twenty."""
    side = 64
    x = (torch.arange(side) + 0.5) / side * 2 * torch.pi
    for n, left in ((2, 0.946), (20, 0.004)):
        given = (0.5 + 0.2 * torch.cos(n * x)).expand(1, 4, 3, side, side).clone()  # goes on when it is reflected
        made = canvas(given[:, 0], given, init="sketch", cycles=6.0)().detach() - 0.5
        share = float((made * torch.cos(n * x)).mean() / (0.2 * torch.cos(n * x).square()).mean())
        assert share == pytest.approx(left, abs=0.03)  # a little noise is on it


def test_a_sketch_is_of_all_photographs_alike_whatever_they_weigh():
    given = photographs(2, N=3)
    first, other = (FourierCanvas(blend, given, init="sketch")() for blend in (given[:, 0], given[:, 1]))
    assert torch.equal(first, other)


def test_a_unit_of_each_coefficient_is_what_photographs_vary_by():
    """The photographs' own coefficients have a mean square of 1 at every frequency."""
    given = pictures(60, side=32, seed=4).reshape(3, 20, 3, 32, 32)
    made = FourierCanvas(given[:, 0], given, init="facet")
    spectra = torch.stack([made.to_spectrum(made.unsquash(facet)) for facet in given]) / made.amplitude
    power = spectra.abs().square().mean(dim=(0, 1, 2)) / 2
    drawn = made.amplitude > 2 * FAINTEST * spectral_amplitude(32, STEEP)  # the others are held up
    assert drawn.float().mean() > 0.2
    assert torch.allclose(power[drawn], torch.ones_like(power[drawn]), rtol=1e-3)


def test_flat_photographs_leave_every_detail_drawable():
    flat = torch.full((1, 2, 3, 16, 16), 0.5)
    amplitude = FourierCanvas(flat[:, 0], flat).amplitude
    assert (amplitude >= FAINTEST * spectral_amplitude(16, STEEP) * 0.999).all()


def test_pixels_that_left_the_range_can_return():
    made = PixelCanvas(torch.full((1, 1, 2, 2), 0.5), photographs(1, ch=1, side=2))
    with torch.no_grad():
        made.pixels += 2
    assert made().max() == 1
    made().sum().backward()
    assert (made.pixels.grad == 1).all()


def test_pixels_start_from_noise_as_strong_as_asked_for():
    grey = torch.full((1, 3, 32, 32), 0.5)
    for noise in (0.01, 0.226):
        pixels = PixelCanvas(grey, grey[:, None], init="noise", noise=noise).pixels
        assert float(pixels.detach().std()) == pytest.approx(noise, rel=0.05)
    with pytest.raises(ValueError, match=r"^noise must be a number of 0 to 1, not -1"):
        PixelCanvas(grey, grey[:, None], noise=-1)


@pytest.mark.parametrize("canvas", [PixelCanvas, FourierCanvas])
@pytest.mark.parametrize("ch", [1, 3, 4])
def test_a_photograph_is_there_as_it_is_before_the_first_step(canvas, ch):
    """The nearest of each facet, or one image for all; black and white come back at the margin of a spectrum."""
    given, own = photographs(ch=ch), pictures(1, ch, seed=8)[0]
    assert torch.allclose(canvas(pictures(ch=ch), given, init="photograph")(), given[:, 0], atol=1e-5)
    assert torch.allclose(canvas(pictures(ch=ch), given, init=own)(), own.expand(3, -1, -1, -1), atol=1e-5)
    hard = (given > given.mean()).float()
    off = (canvas(pictures(ch=ch), hard, init="photograph")() - hard[:, 0]).abs().max()
    assert off <= (1e-6 if canvas is PixelCanvas else MARGIN + 1e-5)


def test_an_image_that_cannot_be_the_start_is_one_line():
    first, given = pictures(), photographs()
    for canvas in (PixelCanvas, FourierCanvas):
        with pytest.raises(ValueError, match=r"one image of \[3, 16, 16\], in 0..1, .*, not \[3, 17, 17\] of float32"):
            canvas(first, given, init=torch.rand(3, 17, 17))
        with pytest.raises(ValueError, match=r"not \[3, 16, 16\] of uint8"):
            canvas(first, given, init=torch.zeros(3, 16, 16, dtype=torch.uint8))
        with pytest.raises(ValueError, match="divide bytes by 255"):
            canvas(first, given, init=torch.full((3, 16, 16), 255.0))
    for init in ("photograph", first[0]):
        with pytest.raises(ValueError, match="take the fourier or the pixel canvas"):
            MacoCanvas(first, given, init=init)
