"""Tensors as pictures, and as what a notebook shows of them."""

import base64
import html
import io

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from mindseye.facets.decoding import MAKER, SOFTWARE

GAP = 4  # pixels between the pictures of a strip
TILE = 112  # their side
MADE_HERE = PngInfo()
MADE_HERE.add_text("Software", MAKER)
MADE_HERE_EXIF = Image.Exif()
MADE_HERE_EXIF[SOFTWARE] = MAKER


def to_picture(image: Tensor) -> Image.Image:
    """[ch, S, S] in 0..1, or uint8, as a picture: 1 channel grey, 3 RGB, 2 their mean, more the first three as RGB."""
    if image.dtype != torch.uint8:
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    if image.shape[0] == 2:
        image = image.float().mean(dim=0, keepdim=True).round().to(torch.uint8)
    shown = image[:3] if image.shape[0] >= 3 else image
    array = shown.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def as_png(picture: Image.Image, *, drawn: bool = True) -> bytes:
    """A PNG; what is `drawn` says who has made it, so that it is taken for no photograph wherever it is put."""
    stored = io.BytesIO()
    picture.save(stored, "PNG", pnginfo=MADE_HERE if drawn else None)
    return stored.getvalue()


def as_webp(picture: Image.Image, quality: int, *, drawn: bool = True) -> bytes:
    """A WebP, as `as_png`; its transparency stays as it is, since fewer levels show as bands."""
    stored = io.BytesIO()
    plain = picture if picture.mode == "RGBA" else picture.convert("RGB")
    plain.save(stored, "WEBP", quality=quality, method=4, exif=MADE_HERE_EXIF if drawn else b"")
    return stored.getvalue()


def strip(images: list[Tensor]) -> Image.Image:
    """Pictures [ch, S, S] side by side, each TILE pixels wide."""
    sheet = Image.new("RGB", (len(images) * (TILE + GAP) - GAP, TILE), "white")
    for place, image in enumerate(images):
        tile = to_picture(image).convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (place * (TILE + GAP), 0))
    return sheet


def inline_png(picture: Image.Image, text: str) -> str:
    """An HTML image that carries its own bytes; `text` stands in its place where it cannot be shown."""
    data = base64.b64encode(as_png(picture)).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}" style="max-width: 100%">'


def html_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table of HTML that is ready: whoever fills a cell with a text has escaped it."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
