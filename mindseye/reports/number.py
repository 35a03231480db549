"""How many facets there are, as a picture: silhouette and firmness over C."""

import io

from matplotlib.figure import Figure
from PIL import Image

from mindseye.facets.number import FIRM, Choice

WIDTH, HEIGHT, DPI = 6.4, 3.6, 150  # inches, pixels per inch


def draw_choice(choice: Choice, title: str) -> Image.Image:
    """Both over C, with a single cloud's silhouette and the bound of firmness; the best C is marked."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.plot(choice.numbers, choice.firmness, "o-", color="0.55", label="firmness on 80 % of the photographs")
    axes.axhline(FIRM, color="0.8", linewidth=0.8)
    axes.plot(choice.numbers, choice.silhouette, "o-", color="C0", label="silhouette")
    axes.plot(choice.numbers, choice.cloud, "--", color="C0", label="silhouette of one cloud")
    axes.axvline(choice.best, color="C3", linewidth=0.8)
    axes.set_xlabel("number of facets C")
    axes.set_xticks(choice.numbers)
    axes.set_ylim(min(0, *choice.silhouette), 1.02)
    kinds = f"best C = {choice.best}" if choice.kinds else f"one continuum; C = {choice.best} cuts it best"
    axes.set_title(f"{title}\n{kinds}", fontsize=9)
    axes.legend(fontsize=7)
    stored = io.BytesIO()
    figure.savefig(stored, format="png", dpi=DPI)
    return Image.open(stored)
