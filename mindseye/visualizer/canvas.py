"""The trainable images and what is trained in their place: pixels, a spectrum, or phases alone.

Every canvas is two maps and their inverses. The *latent* [C, ch, S, S] is unbounded and is made from the parameters;
the *image* in 0..1 is the latent squashed. `encode` runs both backwards, so that blur, denoising and the centre mask,
which work on pictures, work on every canvas.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mindseye.fields import Start, Words, check

SKETCH = 6.0  # cycles per image: the standard deviation, in frequency, of the low-pass that leaves a sketch of a blend
NOISE = 0.01  # standard deviation, of 0..1, of the noise on grey and on sketches
STEEP, FAINTEST = 1.4, 1e-2  # the power of 1/f, and the share of it, that the photographs' spectrum is never below
STEEPEST = 5.0  # decay: above, fine detail is scaled below what float32 tells from nothing
Init = Annotated[Start | Tensor, Words("facet, sketch, noise, photograph or an image")]  # the command: or its path
Cycles = Annotated[float, Field(gt=0)]
Noise = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, le=STEEPEST)] | None
MARGIN = 0.02  # images are kept this far inside 0..1 before the logit, whose slope has no bound at 0 and 1


@dataclass(frozen=True)
class ColourStatistics:
    """How the logits of photographs' pixels vary: mean [ch], and the symmetric root [ch, ch] of their covariance."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "ColourStatistics":
        """From photographs [n, ch, H, W] in 0..1."""
        ch = images.shape[1]
        logits = safe_logit(images.double()).transpose(0, 1).reshape(ch, -1)
        mean = logits.mean(dim=1)
        covariance = (logits - mean[:, None]) @ (logits - mean[:, None]).T / logits.shape[1]
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        # A floor: photographs of a single colour, or grey ones read as RGB, must still leave every direction trainable.
        spread = torch.maximum(eigenvalues, 1e-3 * eigenvalues[-1].clamp(min=1)).sqrt()
        return cls(mean.float(), (vectors * spread @ vectors.T).float())

    @classmethod
    def plain(cls, channels: int, device: torch.device | None = None) -> "ColourStatistics":
        """No decorrelation: every channel for itself."""
        return cls(torch.zeros(channels, device=device), torch.eye(channels, device=device))


def safe_logit(images: Tensor, margin: float = MARGIN) -> Tensor:
    """log(x/(1 − x)) of values in 0..1, clamped to margin..1 − margin."""
    return torch.logit(images.clamp(margin, 1 - margin))


def each_alone(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """An elementwise function of batches [c, …], so that each of the c gives the same bits in any batch.

    On a CPU torch computes the last few numbers of a run by other instructions than the rest, and exp, log, sin and
    atan differ between them in the last digit. Where a picture's numbers fall would depend on those before it.
    """
    if batches[0].device.type != "cpu":
        return function(*batches)
    # contiguous: einsum lays several pictures out otherwise than one.
    return torch.stack([function(*(x.contiguous() for x in rows)) for rows in zip(*batches, strict=True)])


def first_images(
    initial: Tensor, photographs: Tensor, init: Init, seed: int, cycles: Cycles = SKETCH, noise: Noise = NOISE
) -> Tensor:
    """What the canvas starts from: [C, ch, S, S] in 0..1.

    `facet`: the facet's blended photographs, `initial`. `sketch`: the broad forms and colours alone of its
    `photographs` [C, N, ch, S, S], their plain mean blurred until `cycles` cycles per image are left (a Gaussian of
    that standard deviation in frequency), so that every detail is drawn and none is given. `noise`: mid-grey with
    noise of σ = `noise`, drawn by `seed`; a sketch has the same noise. `photograph`: the first of its photographs,
    which is the nearest to its centre. A tensor [ch, S, S] in 0..1: this image, for all facets.

    Raises ValueError.
    """
    check("cycles", cycles, Cycles)
    check("noise", noise, Noise)
    if isinstance(init, Tensor):
        return _of_ones_own(init, initial)
    check("init", init, Annotated[Start, Words("facet, sketch, noise, photograph or an image [ch, S, S]")])
    if init == "facet":
        return initial
    if init == "photograph":
        return photographs[:, 0]
    first = torch.full_like(initial, 0.5)
    for c in range(len(initial)):
        if init == "sketch":
            # Each facet alone, so that it comes out the same among others.
            first[c] = low_pass(photographs[c].mean(dim=0), cycles)
        # One generator per facet, so that a facet starts the same however many others there are.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + c)
        first[c] += noise * torch.randn(initial.shape[1:], generator=generator).to(initial.device)
    return first


def _of_ones_own(image: Tensor, initial: Tensor) -> Tensor:
    """An image as the start of every facet."""
    if image.shape != initial.shape[1:] or not image.is_floating_point():
        raise ValueError(
            f"init must be one image of {list(initial.shape[1:])}, in 0..1, as the pictures are, not "
            f"{list(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
        )
    if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
        raise ValueError("init must be an image in 0..1: divide bytes by 255")
    return image.to(initial)[None].expand_as(initial)


def low_pass(image: Tensor, cycles: float) -> Tensor:
    """An image [ch, S, S] times a Gaussian of `cycles` cycles per image in frequency; its border is reflected."""
    S = image.shape[-1]
    mirrored = torch.cat([image, image.flip(-1)], dim=-1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], dim=-2)
    # In cycles per image, of which there are two beside one another.
    f = torch.fft.fftfreq(2 * S, d=1 / S, device=image.device)
    passed = torch.exp(-(f[:, None].square() + f[None, : S + 1].square()) / (2 * cycles**2))
    return torch.fft.irfft2(torch.fft.rfft2(mirrored) * passed, s=(2 * S, 2 * S))[:, :S, :S].clamp(0, 1)


class Canvas(nn.Module):
    """C trainable images of `side` pixels. forward(facets) -> [c, ch, S, S] in 0..1.

    Those here take where they start, see `first_images`. noise: standard deviation, of 0..1, of the noise on grey and
    on sketches. init: the facet's blended photographs (facet), their broad forms and colours alone (sketch), grey
    (noise), the nearest one itself (photograph), or an image of one's own; the command takes its path. cycles: per
    image, of a sketch: the low-pass that leaves it.
    """

    side: int
    per_facet: tuple[str, ...]  # the parameters and buffers whose first dimension is the facets

    @abstractmethod
    def latent(self, facets: slice = slice(None)) -> Tensor:
        """The unbounded picture [c, ch, S, S] that the parameters stand for."""

    @abstractmethod
    def set_latent_(self, latent: Tensor) -> None:
        """Change the parameters so that `latent()` gives this (as nearly as this canvas can)."""

    @abstractmethod
    def squash(self, latent: Tensor) -> Tensor:
        """Latent -> image in 0..1."""

    @abstractmethod
    def unsquash(self, images: Tensor) -> Tensor:
        """Image in 0..1 -> latent."""

    def forward(self, facets: slice = slice(None)) -> Tensor:
        """The images of `facets`, [c, ch, S, S] in 0..1."""
        return self.squash(self.latent(facets))

    @torch.no_grad()
    def encode(self, images: Tensor) -> None:
        """Take in pictures [C, ch, S, S] in 0..1: afterwards forward() gives them back."""
        self.set_latent_(self.unsquash(images))

    def of_facets(self) -> list[Tensor]:
        """The parameters and buffers [C, …] themselves."""
        return [getattr(self, name) for name in self.per_facet]

    def keep(self, facets: slice) -> None:
        """Let all facets but these go. What was made from the photographs of all stays as it is."""
        for name in self.per_facet:
            value = getattr(self, name)
            kept = value.detach()[facets].clone()
            setattr(self, name, nn.Parameter(kept) if isinstance(value, nn.Parameter) else kept)


class PixelCanvas(Canvas):
    """The pixels themselves, in 0..1. Steps that leave the range are brought back to it by `forward`'s clamp.

    The clamp passes gradients straight through, so that a pixel that has left can return.

    initial: the images to start from, [C, ch, S, S] in 0..1. photographs: [C, N, ch, S, S] in 0..1.
    init, cycles, noise: see `Canvas`. seed: of the noise. Raises ValueError.
    """

    per_facet = ("pixels",)

    def __init__(
        self,
        initial: Tensor,
        photographs: Tensor,
        *,
        init: Init = "facet",
        cycles: Cycles = SKETCH,
        noise: Noise = NOISE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.side = initial.shape[-1]
        self.pixels = nn.Parameter(first_images(initial, photographs, init, seed, cycles, noise).clone())

    def latent(self, facets: slice = slice(None)) -> Tensor:
        return self.pixels[facets]

    @torch.no_grad()
    def set_latent_(self, latent: Tensor) -> None:
        self.pixels.copy_(latent)

    def squash(self, latent: Tensor) -> Tensor:
        return latent + (latent.clamp(0, 1) - latent).detach()

    def unsquash(self, images: Tensor) -> Tensor:
        return images.clamp(0, 1)


class _SpectralCanvas(Canvas):
    """What the two spectral canvases share: decorrelated logits, a scaled Fourier transform, a sigmoid."""

    mean: Tensor
    root: Tensor
    unroot: Tensor
    amplitude: Tensor

    def __init__(self, shape: tuple[int, ...], colours: ColourStatistics, decay: float) -> None:
        super().__init__()
        self.side = shape[-1]
        self.register_buffer("mean", colours.mean[:, None, None])
        self.register_buffer("root", colours.root)
        self.register_buffer("unroot", torch.linalg.inv(colours.root.double()).float())
        self.register_buffer("amplitude", spectral_amplitude(self.side, decay).to(colours.mean.device))

    def squash(self, latent: Tensor) -> Tensor:
        return each_alone(torch.sigmoid, torch.einsum("xy,nyhw->nxhw", self.root, latent) + self.mean)

    def unsquash(self, images: Tensor) -> Tensor:
        return torch.einsum("xy,nyhw->nxhw", self.unroot, each_alone(safe_logit, images) - self.mean)

    def to_spectrum(self, latent: Tensor) -> Tensor:
        """Latent -> complex coefficients [C, ch, S, S//2 + 1] before scaling."""
        return torch.fft.rfft2(latent, norm="forward")

    def from_spectrum(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(spectrum, s=(self.side, self.side), norm="forward")


def spectral_amplitude(side: int, decay: float) -> Tensor:
    """1/f^decay over the half-spectrum [S, S//2 + 1], f in cycles per image (the mean counts as f = 1).

    Scaled so that a spectrum of independent unit normal numbers gives a picture of unit variance: a learning rate then
    means the same change of picture at every resolution and decay.
    """
    fy = torch.fft.fftfreq(side, d=1 / side, dtype=torch.float64)
    fx = torch.fft.rfftfreq(side, d=1 / side, dtype=torch.float64)
    amplitude = (fy[:, None] ** 2 + fx[None, :] ** 2).sqrt().clamp(min=1) ** -decay
    # All columns but the first (and, for an even side, the last) stand for two conjugate coefficients.
    copies = torch.full_like(fx, 2.0)
    copies[0] = 1
    if side % 2 == 0:
        copies[-1] = 1
    # real and imaginary part, unit variance each, contribute |amplitude|²·2 (once) or ·4·½·2 for a conjugate pair
    variance = (amplitude**2 * copies * copies).sum()
    return (amplitude / variance.sqrt()).float()


class FourierCanvas(_SpectralCanvas):
    """A spectrum of decorrelated logits, scaled as that of the photographs (after Olah et al., Feature Visualization,
    2017, who scale by 1/f). One unit of a coefficient is what photographs vary by at its frequency.

    initial: the images to start from, [C, ch, S, S] in 0..1. photographs: [C, N, ch, S, S] in 0..1, for their colours
    and their spectrum. decay: None scales each coefficient by its root mean square over the photographs; a number, 0 to
    5, by 1/f^decay. decorrelate: mix the channels by the square root of the covariance of the photographs' logits, so
    that one step changes colours as photographs vary. init, cycles: see `Canvas`. seed: of the noise.
    Raises ValueError.
    """

    per_facet = ("spectrum",)

    def __init__(
        self,
        initial: Tensor,
        photographs: Tensor,
        *,
        decay: Decay = None,
        decorrelate: bool = True,
        init: Init = "facet",
        cycles: Cycles = SKETCH,
        seed: int = 0,
    ) -> None:
        check("decay", decay, Decay)
        if decorrelate:
            colours = ColourStatistics.of(photographs.flatten(0, 1))
        else:
            colours = ColourStatistics.plain(initial.shape[1], photographs.device)
        super().__init__(tuple(initial.shape), colours, STEEP if decay is None else decay)
        if decay is None:
            self.amplitude = photographs_amplitude([self.to_spectrum(self.unsquash(facet)) for facet in photographs])
        first = first_images(initial, photographs, init, seed, cycles)
        spectrum = torch.view_as_real(self.to_spectrum(self.unsquash(first)) / self.amplitude).contiguous()
        self.spectrum = nn.Parameter(spectrum)

    def latent(self, facets: slice = slice(None)) -> Tensor:
        return self.from_spectrum(torch.view_as_complex(self.spectrum[facets]) * self.amplitude)

    @torch.no_grad()
    def set_latent_(self, latent: Tensor) -> None:
        self.spectrum.copy_(torch.view_as_real(self.to_spectrum(latent) / self.amplitude))


def photographs_amplitude(spectra: Sequence[Tensor]) -> Tensor:
    """By how much photographs vary at each frequency: complex spectra [N, ch, S, S//2 + 1], several -> [S, S//2 + 1].

    The root mean square over photographs and channels, of the real or the imaginary part, so that unit normal
    coefficients have the photographs' power. At least FAINTEST of a 1/f^STEEP spectrum of unit variance, since flat
    photographs have none, and every detail must stay drawable.
    """
    power = torch.stack([spectrum.abs().square().mean(dim=(0, 1)) for spectrum in spectra]).mean(dim=0) / 2
    S = power.shape[0]
    return power.sqrt().clamp(min=FAINTEST * spectral_amplitude(S, STEEP).to(power.device))


class MacoCanvas(_SpectralCanvas):
    """Only phases are trained; every magnitude stays the mean magnitude of the facet's photographs.

    MACO (Fel et al., NeurIPS 2023), with decorrelated logits. `encode` keeps a picture's phases and mean colour.

    initial: the images to start from, [C, ch, S, S] in 0..1. photographs: [C, N, ch, S, S] in 0..1, for magnitudes and
    colours. cycles: see `Canvas`. seed: of the noise. init: as of the other canvases, but for a photograph alone, whose
    magnitudes are its own. Raises ValueError.
    """

    per_facet = ("magnitude", "phase")

    magnitude: Tensor

    def __init__(
        self, initial: Tensor, photographs: Tensor, *, init: Init = "facet", cycles: Cycles = SKETCH, seed: int = 0
    ) -> None:
        if isinstance(init, Tensor) or init == "photograph":
            raise ValueError(
                "init: phases alone, with other magnitudes, are no photograph: take the fourier or the pixel canvas"
            )
        super().__init__(tuple(initial.shape), ColourStatistics.of(photographs.flatten(0, 1)), decay=0.0)
        magnitudes = [self.to_spectrum(self.unsquash(facet)).abs().mean(dim=0) for facet in photographs]
        self.register_buffer("magnitude", torch.stack(magnitudes))
        spectrum = self.to_spectrum(self.unsquash(first_images(initial, photographs, init, seed, cycles)))
        self.phase = nn.Parameter(each_alone(torch.angle, spectrum))

    def latent(self, facets: slice = slice(None)) -> Tensor:
        return self.from_spectrum(each_alone(torch.polar, self.magnitude[facets], self.phase[facets]))

    @torch.no_grad()
    def set_latent_(self, latent: Tensor) -> None:
        self.phase.copy_(each_alone(torch.angle, self.to_spectrum(latent)))
