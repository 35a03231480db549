"""What a notebook shows of a result: pictures that carry themselves, figures, and names as text."""

import base64
import io
import re
from collections import OrderedDict
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from torch import nn

import mindseye as me

EVIL = '<script>alert("x")</script>&.png'


class Page(HTMLParser):
    """The tags and texts of a page, as a browser sees them; every opened tag must be closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.images, self.open = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def picture(image):
    kind, data = re.fullmatch(r"data:(image/png);base64,(.+)", image["src"]).groups()
    assert kind == "image/png"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture(scope="module")
def result(network, targets):
    mark = {"brightness": lambda images, a, targets: images.mean(dim=(1, 2, 3))}
    return me.visualize(network, targets, me.Method(steps=1), metrics=mark)


def test_a_visualization_shows_its_sheet_and_its_measures(result):
    page = Page(result._repr_html_())
    [sheet] = page.images
    assert picture(sheet).height > result.targets.C * 100
    assert f"{result.metrics['facets'][1]['fidelity']['cosine']:.3f}" in page.texts
    assert f"{result.metrics['baselines']['noise']['selectivity']:.3f}" in page.texts
    assert f"{float(result.images[2].mean()):.3f}" in page.texts
    assert {"brightness", "mean", "initial", "nearest", "noise"} <= {*page.texts}


@pytest.mark.parametrize(("channels", "seen"), [(1, (200, 200, 200)), (6, (200, 100, 50))])
def test_other_numbers_of_channels_are_shown_as_they_are(tmp_path, channels, seen):
    """One as grey, of more the first three as red, green and blue."""
    values = [200, 100, 50, 0, 255, 7][:channels]
    for number in range(4):
        image = np.tile(np.array(values, dtype=np.uint8)[:, None, None], (1, 16, 16))
        image[:, :2, :2] = 10 * number  # so that they are not all the same
        if channels == 1:
            Image.fromarray(image[0]).save(tmp_path / f"{number}.png")
        else:
            np.save(tmp_path / f"{number}.npy", image)
    body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU())
    network = me.load_network(body, mean=[0.5] * channels, std=[0.2] * channels, size=16)
    photographs = me.load_photographs(tmp_path, size=16, channels=channels)
    targets = me.discover_facets(network, photographs, "1", me.Facets(C=2, k=3, N=2))
    judge = me.transfer_reference(network, "0", targets, photographs)
    result = me.visualize(network, targets, me.Method(steps=1), transfer=[judge])
    blend = picture(Page(targets._repr_html_()).images[1]).convert("RGB")
    assert blend.getpixel((90, 90)) == pytest.approx(seen, abs=2)
    page = Page(result._repr_html_())
    assert "transfer.cosine" in page.texts
    sheet = np.asarray(picture(page.images[0]).convert("RGB"))
    assert (sheet == seen).all(axis=2).sum() > 180 * 180  # of the photographs


def test_targets_show_their_photographs(targets):
    page = Page(targets._repr_html_())
    assert len(page.images) == 2 * targets.C
    # the blend of facet 0 in the colours that it has
    blend = picture(page.images[1])
    assert blend.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) == pytest.approx(
        [float(255 * targets.initial[0, ch].mean()) for ch in range(3)], abs=6
    )
    best = int(targets.chosen[0, targets.weights[0].argmax()])
    assert targets.paths[best] in page.texts


def test_a_prompt_shows_one_line(targets, result):
    assert repr(targets) == "<FacetTargets at layer3.0: top 8 of 96 channels · 3 facets of 24 photographs>"
    assert repr(result).startswith("<Visualization of demo · layer3.0: top 8 of 96 channels")
    assert f"{result.metrics['summary']['fidelity']['cosine']:.3f}" in repr(result)


def test_nothing_public_prints_all_it_holds(network, photographs, targets, result, tmp_path):
    assert repr(photographs) == f"<Photographs: 24 under {photographs.root}, read as 3 × 48 × 48>"
    named = " · early layer2.0, middle layer3.0, late layer4.0>"
    assert re.fullmatch(r"<Network demo: 3 channels, 96 pixels, [\d,]+ weights" + named, repr(network))
    judge = me.transfer_reference(network, "layer2.0", targets, photographs)
    assert repr(judge) == "<TransferReference demo at layer2.0: 3 facets>"
    assert re.fullmatch(r"<Fit of 3 facets: 1 steps, [\d.]+ s>", repr(result.fit))
    stored = me.read_run(result.save(tmp_path / "run"))
    assert repr(stored) == f"<StoredRun {tmp_path / 'run'}: 3 facets>"


def test_photographs_show_the_first_of_them(photographs, tmp_path):
    page = Page(photographs._repr_html_())
    shown = picture(page.images[0])
    assert shown.width > 7 * shown.height  # eight side by side
    first = shown.crop((0, 0, shown.height, shown.height)).resize((1, 1), Image.Resampling.BOX)
    seen = photographs.read(0).float().mean(dim=(1, 2)).tolist()
    assert first.getpixel((0, 0)) == pytest.approx(seen, abs=3)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    assert not Page(me.load_photographs(tmp_path, size=8)._repr_html_()).images


def test_names_are_data(targets, result):
    named = replace(targets, root=EVIL, layer=EVIL, paths=tuple(EVIL for _ in targets.paths))
    for shown in (named, replace(result, targets=named, title=EVIL)):
        page = Page(shown._repr_html_())
        assert "script" not in page.tags
        assert any(EVIL in text for text in page.texts)


def test_a_table_of_layers_shows_those_to_choose_from():
    own = nn.Sequential(OrderedDict(first=nn.Conv2d(1, 8, 3, stride=2), relu=nn.ReLU(), second=nn.Conv2d(8, 4, 3)))
    table = me.layer_table(me.load_network(own, mean=[0.5], std=[0.25], size=33))
    assert [line.split() for line in repr(table).splitlines()[1:]] == [
        ["first", "Conv2d", "8", "16", "3"],
        ["second", "Conv2d", "4", "14", "7"],
    ]
    page = Page(table._repr_html_())
    rows = [page.texts[start : start + 5] for start in range(6, len(page.texts), 5)]  # an empty cell has no text
    assert rows == [["first", "Conv2d", "8", "16", "3"], ["second", "Conv2d", "4", "14", "7"]]
