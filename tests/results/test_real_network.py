"""A real ImageNet network, EfficientNet-Lite0 of the test extra, and photographs that libraries bring along.

Crops of three photographs: every crop of one is of one class to the network, so that what a facet is, and what its
picture should be seen as, are known.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import mindseye as me

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

CROPS, SIDE = 12, 160
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
KINDS = {"cat": 285, "espresso": 967, "palace": 698}  # ImageNet's numbers of their classes


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    whole = {
        "cat": skimage.data.chelsea(), "espresso": skimage.data.coffee(), "palace": load_sample_image("china.jpg")
    }  # fmt: skip
    for name, image in whole.items():
        drawn = np.random.default_rng(0)
        height, width = image.shape[:2]
        for number in range(CROPS):
            side = int(min(height, width) * drawn.uniform(0.6, 1.0))
            y, x = drawn.integers(0, height - side + 1), drawn.integers(0, width - side + 1)
            crop = Image.fromarray(image[y : y + side, x : x + side]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            crop.save(folder / f"{name}-{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def body() -> torch.nn.Module:
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    from efficientnet_lite import build

    return build().eval()


@pytest.fixture(scope="module")
def seen(body, crops):
    """The network, and the facets that it finds in the crops."""
    network = me.load_network(body, mean=MEAN, std=STD, size=SIDE)
    photographs = me.load_photographs(crops, size=SIDE)
    return network, me.discover_facets(network, photographs, "_bn1", me.Facets(C=3, k=50, N=7))


@pytest.fixture(scope="module")
def draw(seen, body):
    """Draws as a preset does: each facet's kind, figures, and the picture's probabilities [1000] to the network."""
    network, targets = seen
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))

    @functools.cache
    def drawn(preset: str, start: str) -> list[tuple[str, dict, torch.Tensor]]:
        method = me.preset(preset, [f"canvas.init={start}"]).method
        result = me.visualize(network, targets, method, me.Running(accelerator="cpu"))
        with torch.no_grad():
            answers = body((result.images - mean) / std).softmax(dim=1)
        return list(zip(kinds_of(targets), result.metrics["facets"], answers, strict=True))

    return drawn


def kinds_of(targets: me.FacetTargets) -> list[str]:
    """Of each facet the photograph that its nearest crop is of."""
    return [targets.paths[int(chosen[0])].split("-")[0] for chosen in targets.chosen]


def test_facets_are_the_photographs_that_crops_are_of(seen):
    _, targets = seen
    assert set(kinds_of(targets)) == set(KINDS)
    of = [path.split("-")[0] for path in targets.paths]
    assert [kinds_of(targets)[label] for label in targets.labels.tolist()] == of


@pytest.mark.parametrize("start", ["facet", "noise"])
def test_pictures_are_as_strong_and_of_the_class_that_the_network_sees(draw, start):
    drawn = draw("calibrated", start)
    for kind, figures, answer in drawn:
        assert figures["fidelity"]["cosine"] >= 0.9
        assert 0.85 <= figures["fidelity"]["magnitude"] <= 1.15
        assert KINDS[kind] in answer.topk(2).indices  # a palace is a bell cote too, as another processor rounds
    assert sum(int(answer.argmax()) == KINDS[kind] for kind, _, answer in drawn) >= 2
    assert np.mean([float(answer[KINDS[kind]]) for kind, _, answer in drawn]) >= 0.4  # without matching 0.27


def test_matching_is_what_makes_pictures_from_noise_those_of_their_class(draw):
    pairs = list(zip(draw("calibrated", "noise"), draw("no_matching", "noise"), strict=True))
    ours, others = ([float(pair[side][2][KINDS[pair[side][0]]]) for pair in pairs] for side in (0, 1))
    assert np.mean(ours) > np.mean(others) + 0.1
    for (_, with_it, _), (_, without, _) in pairs:
        assert with_it["path"]["target"] > without["path"]["target"]
