"""Figures and films of real, tiny run folders: what is on the page, read back from the files."""

import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

import mindseye as me
from mindseye.commands.figures import LONGEST, _file_name, figures, film
from mindseye.commands.main import main
from mindseye.commands.views import read_view
from mindseye.facets import discover_facets
from mindseye.networks import demo_network
from mindseye.reports.figures import (
    COLOURS,
    COLUMN,
    DPI,
    MARKERS,
    PAGE,
    SMALL,
    DrawnLayer,
    FlowColumn,
    evenly,
    facet_flow,
    feature_space,
    fitted,
    grid,
    iterations,
    layers_by_targets,
    match_facets,
    readable,
    save_figure,
    visualizations,
)
from mindseye.reports.flow import Partition
from mindseye.reports.video import frames
from mindseye.results.run_folder import snapshot_files
from mindseye.settings import Facets
from mindseye.sweeps.manifest import add_cells

OF_FACETS = ("initial", "maps", "channels", "weights", "chosen", "distances", "photographs", "centres")
HOSTILE = ("$\\frac{1$.jpg", "<b>&amp;%s</b>", "a\nb\x00\x1b[31m", "桜🍌", "_^{}\\", "x" * 300, "\udcff.png")
NAMES = ("fig1_visualizations", "fig2_feature_space", "fig3_iterations")


@pytest.fixture(scope="module")
def run(targets, tmp_path_factory):
    """A run as the command leaves it, of photographs and a network with the worst of names."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    paths = tuple(HOSTILE[i % len(HOSTILE)] + str(i) for i in range(len(targets.paths)))
    named = replace(targets, paths=tuple(path.encode("utf-8", "replace").decode() for path in paths))
    network = demo_network()
    network.name = "$x_{$ <i>"
    result = me.visualize(network, named, me.Method(steps=5), me.Running(snapshots=2, accelerator="cpu"))
    named.save(folder / "targets")
    return result.save(folder)


@pytest.fixture(scope="module")
def drawn(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    figures([str(run), "--out", str(out)])
    return out


def page(pdf: Path) -> bytes:
    """All streams of a PDF unpacked, one after the other, behind the file's own text."""
    content = pdf.read_bytes()
    unpacked = []
    for start in re.finditer(rb"stream\r?\n", content):
        try:
            unpacked.append(zlib.decompressobj().decompress(content[start.end() :]))
        except zlib.error:
            continue
    return content + b"".join(unpacked)


def inches(pdf: Path) -> tuple[float, float]:
    [box] = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf.read_bytes())
    return float(box[0]) / 72, float(box[1]) / 72


def said(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_every_figure_is_a_pdf_and_a_png_of_the_same_print_size(drawn):
    assert {path.name for path in drawn.iterdir()} == {f"{name}.{form}" for name in NAMES for form in ("pdf", "png")}
    for name, width in zip(NAMES, (COLUMN, PAGE, PAGE), strict=True):
        pdf, png = drawn / f"{name}.pdf", Image.open(drawn / f"{name}.png")
        assert pdf.read_bytes().startswith(b"%PDF-")
        assert pdf.read_bytes().rstrip().endswith(b"%%EOF")
        assert inches(pdf)[0] == pytest.approx(width, abs=0.01)
        assert png.size == pytest.approx([round(side * DPI) for side in inches(pdf)], abs=1)
        assert png.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
        assert np.asarray(png.convert("L")).std() > 10


def test_text_in_the_pdf_is_text_and_pictures_have_their_own_pixels(drawn):
    for name in NAMES:
        content = page(drawn / f"{name}.pdf")
        assert b"/Subtype /Type0" in content  # a TrueType font of which letters can be copied
        assert b"/FontFile2" in content
        assert b"/ToUnicode" in content
        assert len(re.findall(rb"/Height 48\b", content)) >= 6  # the photographs' 48 pixels, not the page's
        assert not re.search(rb"/Height (?!48\b)\d+", content)
        assert b"/CreationDate" not in content


def test_the_same_call_gives_the_same_bytes_in_another_process_and_under_the_user_s_own_style(drawn, run, tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\ntext.usetex: True\nsavefig.dpi: 50\n")
    script = Path(__file__).parents[2] / "scripts/make_figures.py"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(me.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script), str(run), "--out", str(tmp_path / "again")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 * len(NAMES)
    for path in drawn.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_pictures_of_a_figure_have_one_scale_and_no_text_is_below_7_points(targets):
    images = torch.rand_like(targets.initial)
    snapshots = {step: images for step in (5, 10)}
    row = DrawnLayer("layer3.0", targets, images)
    for figure in (
        visualizations(images, targets.photographs[:, :2]),
        feature_space(targets),
        iterations(targets.nearest(), snapshots, initial=targets.initial),
        layers_by_targets([row, row]),
    ):
        places = [axes.get_position().bounds for axes in figure.axes if axes.images]
        sides = np.array(places)[:, 2:] * figure.get_size_inches()
        assert np.ptp(sides) < 1e-9  # squares of one size
        assert min(text.get_fontsize() for text in [*figure.texts, *(t for a in figure.axes for t in a.texts)]) >= SMALL
        for left, bottom, width, height in places:
            assert min(left, bottom) > -1e-9
            assert max(left + width, bottom + height) < 1 + 1e-9


@pytest.mark.parametrize("C", [1, 4, 12])
def test_any_number_of_facets_fits_on_the_page(C, targets):
    some = torch.arange(C) % targets.C
    labels = torch.arange(len(targets.paths)) % C
    many = replace(targets, labels=labels, **{name: getattr(targets, name)[some] for name in OF_FACETS})
    images = many.initial
    for figure, pictures in (
        (visualizations(images, many.photographs[:, :1]), 2 * C),
        (feature_space(many), 4 * C),
        (iterations(many.nearest(), {3: images}), 2 * C),
        (layers_by_targets([DrawnLayer("a", many, images), DrawnLayer("b", many, images)]), 4 * C),
    ):
        assert figure.get_figwidth() in (COLUMN, PAGE)
        shown = [axes for axes in figure.axes if axes.images]
        assert len(shown) == pictures
        bounds = np.array([axes.get_position().bounds for axes in shown])
        assert bounds.min() > -1e-9
        assert (bounds[:, :2] + bounds[:, 2:]).max() < 1 + 1e-9


def test_a_marked_facet_has_an_asterisk_that_the_figure_explains(targets):
    C = targets.C
    loose = replace(targets, firmness=torch.tensor([0.3] + [1.0] * (C - 1)))
    marks = [", ".join(words) for words in loose.marks()]
    assert marks == ["not firm"] + [""] * (C - 1)
    images, steps = loose.initial, {5: loose.initial}
    for figure in (
        visualizations(images, marks=marks),
        iterations(images, steps, marks=marks),
        layers_by_targets([DrawnLayer("late", loose, images)]),
    ):
        words = [*said(figure), *(text.get_text() for axes in figure.axes for text in axes.texts)]
        assert [word for word in words if word.endswith("*")] == ["facet 0*"]
        assert "* not firm" in words
    assert not [word for word in said(visualizations(images, marks=[""] * C)) if "*" in word]


def test_a_column_of_figure_1_is_one_facet(targets):
    images = torch.stack([torch.full((3, 8, 8), c / 4) for c in range(3)])
    figure = visualizations(images, targets.photographs[:, :1], labels=["a", "b", "c"])
    shades = {}
    for axes in figure.axes:
        array = np.asarray(axes.images[0].get_array())
        if array.shape[0] == 8:
            shades[round(axes.get_position().x0, 6)] = int(array.mean())
    assert [shades[x] for x in sorted(shades)] == [0, 64, 128]
    below = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert below["a"] < below["b"] < below["c"]


def test_figure_2_gives_the_weights_largest_first_and_marks_what_they_belong_to(network, photographs):
    """Of the paper's facets, whose weights come of distances in the plane that is drawn."""
    targets = discover_facets(
        network,
        photographs,
        network.resolve(depth="middle"),
        Facets(
            C=3,
            k=8,
            N=4,
            clusters="embedding",
            weighting="published",
            effective=None,
            selection="nearest",
            components=50,
        ),
    )
    figure = feature_space(targets)
    numbers = [float(text) for text in said(figure) if re.fullmatch(r"\d\.\d\d", text)]
    expected = targets.weights.sort(dim=1, descending=True).values.flatten().tolist()
    assert numbers == pytest.approx(expected, abs=0.005 + 1e-6)
    everything = figure.axes[0]
    assert everything.get_aspect() == 1  # distances are what weights come from
    dots = np.concatenate([points.get_offsets() for points in everything.collections[: targets.C]])
    assert sorted(map(tuple, dots.tolist())) == sorted(map(tuple, targets.embedding.tolist()))
    rings = np.concatenate([points.get_offsets() for points in everything.collections[targets.C :]])
    assert np.allclose(rings, targets.embedding[targets.chosen.flatten()].numpy())
    # A longer line has the smaller weight, and is the thinner one.
    lines = [line for line in everything.lines if len(line.get_xdata()) == 2][: targets.chosen.shape[1]]
    lengths = [float(np.hypot(np.ptp(line.get_xdata()), np.ptp(line.get_ydata()))) for line in lines]
    assert np.argsort(lengths).tolist() == np.argsort([-line.get_linewidth() for line in lines]).tolist()


def test_figure_2_marks_facets_that_are_not_firm(targets):
    loose = replace(targets, firmness=torch.tensor([1.0, 0.3] + [1.0] * (targets.C - 2)))
    words = [text for text in said(feature_space(loose)) if text.startswith("cluster of")]
    assert ["not firm" in text for text in words] == ["not firm" in marks for marks in loose.marks()]
    assert "not firm" in words[1]


def test_colours_are_told_apart_by_the_colour_blind():
    """Okabe & Ito's; and no two of the first 36 facets look the same."""
    assert len(set(COLOURS)) == len(COLOURS) == len(MARKERS)
    from mindseye.reports.figures import _look

    assert len({tuple(_look(c).values()) for c in range(36)}) == 36


def test_figure_3_shows_even_steps_and_the_last(targets):
    snapshots = {step: targets.initial for step in range(10, 101, 10)}
    names = said(iterations(targets.nearest(), snapshots, initial=targets.initial))
    assert [name for name in names if name[0] in "TI"] == [
        "Target image", "Initial image", *(f"Iteration {step}" for step in (20, 40, 60, 80, 100)),
    ]  # fmt: skip
    assert len(said(iterations(targets.nearest(), snapshots, width=COLUMN))) < len(names)
    assert evenly([7], 5) == [7]
    with pytest.raises(ValueError, match="snapshots=N"):
        iterations(targets.nearest(), {})


def test_facets_of_two_layers_are_matched_by_the_photographs_they_share():
    reference = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    labels = torch.tensor([2, 2, 2, 2, 0, 0, 1, 1, 1])
    order, overlap = match_facets(labels, reference, 3)
    assert order == [2, 0, 1]
    assert overlap == pytest.approx([1, 2 / 3, 2 / 3])
    # One to one, although facet 0 has the largest overlap with both.
    order, _ = match_facets(torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    assert order == [0, 1]


def test_figure_4_puts_into_a_column_what_belongs_together(targets):
    swapped = [2, 0, 1]
    inverse = torch.tensor(swapped).argsort()
    changed = {name: getattr(targets, name)[swapped] for name in OF_FACETS}
    other = replace(targets, layer="other", labels=inverse[targets.labels], **changed)
    rows = [DrawnLayer("early", other, other.initial), DrawnLayer("late", targets, targets.initial)]
    figure = layers_by_targets(rows)
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    early, late = pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]
    assert all(np.array_equal(above, below) for above, below in zip(early, late, strict=True))
    captions = [text for text in said(figure) if "overlap" in text]
    assert captions == [f"facet {c}, overlap 1.00" for c in inverse.tolist()]
    # Of other photographs nothing can be said to belong together.
    elsewhere = DrawnLayer("early", replace(other, paths=other.paths[::-1]), other.initial)
    apart = layers_by_targets([elsewhere, DrawnLayer("late", targets, targets.initial)])
    assert not [text for text in said(apart) if "overlap" in text]


def flow_column(label, targets, labels):
    return FlowColumn(Partition(label, targets.paths, labels.numpy(), targets.C), targets.initial)


def test_figure_5_has_a_ribbon_for_all_that_two_facets_share_as_thick_as_it(targets):
    swapped = torch.tensor([2, 0, 1])[targets.labels]
    columns = [flow_column("early", targets, targets.labels), flow_column("late", targets, swapped)]
    columns.append(flow_column("last", targets, (targets.labels == 0).long()))
    figure = facet_flow(columns)
    assert figure.get_figwidth() == PAGE
    patches = figure.axes[0].patches
    bands = [patch for patch in patches if not isinstance(patch, Rectangle)]
    bars = [patch for patch in patches if isinstance(patch, Rectangle)]
    assert len(bands) == 3 + 3  # swapped: one to one; then facet 0 goes its own way, and two go together
    sizes = targets.labels.bincount(minlength=3).tolist()
    thick = [float(np.ptp(band.get_path().vertices[[0, 7], 1])) for band in bands[:3]]
    assert np.array(thick) / thick[0] == pytest.approx(np.array(sizes) / sizes[0])
    # Facets of the same photographs have one colour, whatever their number, and so their ribbon.
    colour = {c: bars[2 * c].get_facecolor()[:3] for c in range(3)}
    texts = said(figure)
    assert texts[:3] == ["early", "late", "last"]
    assert [band.get_facecolor()[:3] for band in bands[:3]] == [colour[c] for c in range(3)]
    assert [bar.get_facecolor()[:3] for bar in bars[6:12:2]] == [colour[c] for c in range(3)]
    with pytest.raises(ValueError, match="two cells or more"):
        facet_flow(columns[:1])


@pytest.mark.parametrize("C", [2, 40])
def test_figure_5_fits_on_a_page(C, targets):
    labels = torch.arange(len(targets.paths)) % C
    images = targets.initial[:1].expand(C, -1, -1, -1)
    columns = [FlowColumn(Partition(str(n), targets.paths, labels.numpy(), C), images) for n in range(3)]
    assert facet_flow(columns).get_figheight() <= 9.21


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_figure(name, targets, tmp_path, recwarn):
    figure = visualizations(targets.initial, labels=[name] * targets.C, heading=name)
    save_figure(figure, tmp_path / "figure")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert all(text.get_text().isprintable() for text in figure.texts)


def test_text_is_kept_where_it_can_be_and_shortened_to_its_room():
    assert readable("σ · $x_1$ ×") == "σ · $x_1$ ×"
    assert readable("a\n桜") == "a□□"
    assert fitted("layer3.5.conv1", 7, 2.0) == "layer3.5.conv1"
    short = fitted("features.block.0.branch.1.conv", 7, 0.8)
    assert re.fullmatch(r"feat.*….*conv", short)
    assert fitted("anything", 7, 0.01) == "…"


# ---- from folders ----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_whole_costs_one_line(run, tmp_path, capsys):
    def refused(folder, *words):
        with pytest.raises(SystemExit) as stopped:
            main(["figures", str(folder), *words])
        assert stopped.value.code == 1
        out, err = capsys.readouterr()
        assert not out
        [line] = err.strip().splitlines()
        assert line.startswith("mindseye: ")
        return line

    assert "no completed run" in refused(tmp_path)
    assert "--facets 3: the run has facets 0 to 2" in refused(run, "--facets", "3")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "facets/01/steps/0002.webp").write_bytes(b"RIFF")
    assert "0002.webp is no readable picture" in refused(copy)
    (copy / "facets/01/steps/0002.webp").unlink()
    assert "same steps" in refused(copy)
    (copy / "targets/targets.safetensors").write_bytes(b"")
    assert "no readable facet targets" in refused(copy)
    (copy / "metrics.json").unlink()
    assert "no completed run" in refused(copy)
    assert not (copy / "figures").exists()


def test_what_a_run_lacks_is_left_out_and_named(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "targets")
    for steps in copy.glob("facets/*/steps"):
        shutil.rmtree(steps)
    main(["figures", str(copy), "--facets", "2", "0"])
    out, err = capsys.readouterr()
    assert [Path(line).name for line in out.splitlines()] == ["fig1_visualizations.pdf", "fig1_visualizations.png"]
    assert ["figure 2" in line or "figure 3" in line for line in err.splitlines()] == [True, True]


def test_a_sweep_over_layers_gives_figure_4(network, photographs, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    words = [[f"layer={layer}", f"k={k}"] for k in (4, 8) for layer in ("layer2.0", "layer3.0")]
    cells = add_cells(sweep, [*words, ["layer=layer4.0", "k=4"]], ["-m"], "")
    results = {}
    for layer in ("layer2.0", "layer3.0"):
        targets = me.discover_facets(network, photographs, layer, me.Facets(C=2, k=4, N=3))
        results[layer] = me.visualize(network, targets, me.Method(steps=1), me.Running(accelerator="cpu"))
    for cell in cells[:4]:
        layer, k = (word.partition("=")[2] for word in cell.overrides)
        results[layer].targets.with_k(int(k)).save(sweep / cell.folder / "targets")
        results[layer].save(sweep / cell.folder)
        (sweep / cell.folder / "status.json").write_text('{"status": "completed"}')
    main(["figures", str(sweep)])
    out, err = capsys.readouterr()
    names = [Path(line).name for line in out.splitlines()]
    assert len(names) == 10  # two values of k, two facets, PDF and PNG
    assert all(re.fullmatch(r"fig4_layers_k=[48]-\w+\.(pdf|png)", name) for name in names[:4])
    assert names[4:6] == ["fig5_flow_layer.pdf", "fig5_flow_layer.png"]  # facets, and so their flow, the same for both
    assert all(re.fullmatch(r"grid_facet_0[01]\.(pdf|png)", name) for name in names[6:])
    assert err.count("\n") == 1
    assert "layer4.0" in err
    with pytest.raises(ValueError, match="one of its runs"):
        figures([str(sweep), "--video", "webp"])
    add_cells(tmp_path / "other", [["k=4"], ["k=8"]], ["-m"], "")
    with pytest.raises(ValueError, match="no two completed cells"):
        figures([str(tmp_path / "other")])


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([["k=4", "objective.gain=1"], ["k=4", "objective.gain=2"], ["k=8", "objective.gain=1"]],
         ["grid_facet_00", "grid_facet_01", "grid_facet_02"]),
        ([["ablation=none"], ["ablation=no_tv"]], ["grid"]),
        ([[f"seed={n}"] for n in range(13)], ["grid_1", "grid_2"]),
        ([["network=a", "k=4", "seed=0"], ["network=b", "k=8", "seed=1"]], ["grid"]),
    ],
)  # fmt: skip
def test_a_sweep_over_anything_gives_its_grid(cells, names, run, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    for cell in add_cells(sweep, cells, ["-m"], ""):
        shutil.copytree(run, sweep / cell.folder)
        (sweep / cell.folder / "status.json").write_text('{"status": "completed"}')
    main(["figures", str(sweep)])
    out, err = capsys.readouterr()
    assert err == ""
    written = [f"{name}.{form}" for name in names for form in ("pdf", "png")]
    assert [Path(line).name for line in out.splitlines()] == written


def test_every_picture_of_a_grid_stands_in_its_row_and_column():
    """Pictures of one grey each: the greys of the page in the places of its rows and columns."""
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)]
    greys = {(i, j): torch.full((3, 8, 8), (1 + i + 2 * j) / 10) for i, j in places}
    page = grid(["a", "b"], ["x", "y", "z"], greys, dict.fromkeys(places, "0.5"), heading="x × y")
    drawn = {}
    for axes in page.axes:
        for image in axes.get_images():
            left, bottom = axes.get_position().p0
            drawn[left, -bottom] = float(image.get_array()[0, 0, 0]) / 255
    rows = sorted({top for _, top in drawn})
    columns = sorted({left for left, _ in drawn})
    found = {(rows.index(top), columns.index(left)): grey for (left, top), grey in drawn.items()}
    assert found == {place: pytest.approx(float(grey[0, 0, 0]), abs=0.01) for place, grey in greys.items()}


# ---- a view of the gallery -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_sweep(targets, tmp_path_factory):
    sweep = tmp_path_factory.mktemp("views") / "sweep"
    words = [(f"k={k}", f"seed={seed}") for k in (4, 8) for seed in (0, 1)]
    for n, cell in enumerate(add_cells(sweep, words, ["-m"], "")[:3]):
        place = sweep / cell.folder / "facets"
        for c in range(2):
            (place / f"{c:02d}").mkdir(parents=True)
            Image.new("RGB", (4, 4), (80 * n, 100 * c, 0)).save(place / f"{c:02d}/visualization.png")
        content = {"facets": [{"facet": c, "fidelity": {"cosine": n + c / 10}} for c in range(2)]}
        (sweep / cell.folder / "metrics.json").write_text(json.dumps(content))
        (sweep / cell.folder / "status.json").write_text('{"status": "completed"}')
    return sweep


def test_a_view_is_drawn_as_the_page_has_it(small_sweep):
    words = "#rows=k&columns=facet&outerColumns=seed&at.picture=visualisation&measure=fidelity.cosine"
    figure = read_view(small_sweep, words).figure()
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    pictures = [picture[0, 0, :3].tolist() for picture in shown]
    first, second, third = ([[80 * n, 100 * c, 0] for c in range(2)] for n in range(3))
    assert pictures == [*first, *second, *third]
    assert "waiting" in said(figure)  # of the cell that was not begun
    texts = said(figure)
    columns = [f"seed {seed} · facet {c}" for seed in (0, 1) for c in (0, 1)]
    assert [text for text in texts if text.startswith("seed")] == columns
    assert [text for text in texts if text.startswith("k ")] == ["k 4", "k 8"]
    numbers = [float(text) for text in texts if re.fullmatch(r"\d\.\d{3}", text)]
    assert numbers == [0, 0.1, 1, 1.1, 2, 2.1]
    assert "below: fidelity.cosine" in texts[0]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("view=map", "rows=…"), ("rows=k&columns=facet&filter=k>4", "a filter"), ("rows=no&columns=k", "no such axis"),
        ("rows=k&columns=facet&sort=best", "another order"), ("rows=k&columns=facet&at.seed=7", "0, 1 are there"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be_drawn_is_refused(small_sweep, words, wrong):
    with pytest.raises(ValueError, match=wrong):
        read_view(small_sweep, words)


def test_a_film_plays_along_an_axis(small_sweep, tmp_path):
    words = "rows=k&columns=facet&measure=fidelity.cosine"
    figures([str(small_sweep), "--view", words, "--video", "webp", "--along", "seed", "--out", str(tmp_path)])
    with Image.open(tmp_path / "view.webp") as film:
        assert film.n_frames == 2
    with pytest.raises(ValueError, match="seed, picture can be played along"):
        figures([str(small_sweep), "--view", words, "--video", "webp", "--along", "k", "--out", str(tmp_path)])


# ---- the film --------------------------------------------------------------------------------------------------------


def test_an_animated_webp_has_a_frame_for_each_snapshot(run, tmp_path):
    figures([str(run), "--out", str(tmp_path), "--video", "webp", "--fps", "5"])
    opened = Image.open(tmp_path / "iterations.webp")
    files = snapshot_files(run)
    assert opened.n_frames == 1 + len(files) + 1 == 4  # the initial image, snapshots, the visualisation
    opened.load()
    assert opened.info["duration"] == 200
    assert opened.width > 3 * 48
    first = np.asarray(opened.convert("RGB")).astype(int)
    opened.seek(2)
    assert np.abs(np.asarray(opened.convert("RGB")).astype(int) - first).max() > 20
    # The first facet's picture stands below the step counter, enlarged by a whole factor.
    picture = np.asarray(Image.open(files[4][0]).resize((192, 192), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(np.asarray(opened.convert("RGB")).astype(int)[30 : 30 + 192, 10 : 10 + 192] - picture).mean() < 6


def test_a_film_marks_a_facet_as_a_figure_does(run, monkeypatch):
    """With an asterisk, which the last lines explain, however narrow it is."""
    files = snapshot_files(run)
    [(step, pictures)] = [*files.items()][:1]
    words = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, place, text, **_: words.append((place, text)))
    plain, marked, narrow = (
        next(frames({step: pictures[:count]}, 4, marks))
        for count, marks in (
            (3, ["", "", ""]), (3, ["", "not firm", ""]), (1, ["not firm, one photograph, mostly others'"]),
        )
    )  # fmt: skip
    said = [text for _, text in words]
    assert said[1:4] == ["facet 0", "facet 1", "facet 2"]
    assert said[5:9] == ["facet 0", "facet 1*", "facet 2", "* not firm"]
    assert said[10] == "facet 0*"
    assert len(said[11:]) == 2
    assert " ".join(said[11:]) == "* not firm, one photograph, mostly others'"
    assert marked.size == (plain.width, plain.height + 18)
    assert words[8][0][1] < marked.height - 12
    assert narrow.height % 2 == 0


def test_an_mp4_has_a_frame_for_each_snapshot(run, tmp_path):
    av = pytest.importorskip("av")
    path, again = (film(run, tmp_path / f"{name}.mp4", "mp4", 4) for name in ("one", "two"))
    assert path.read_bytes() == again.read_bytes()
    with av.open(str(path)) as opened:
        frames = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        assert opened.streams.video[0].average_rate == 4
        assert opened.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert len(frames) == 1 + len(snapshot_files(run)) + 1 == 4
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    picture = np.asarray(Image.open(snapshot_files(run)[4][0]).resize((192, 192), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(frames[2][30 : 30 + 192, 10 : 10 + 192].astype(int) - picture).mean() < 8
    final = Image.open(run / "facets" / "00" / "visualization.png").convert("RGB")
    final = final.resize((192, 192), Image.Resampling.LANCZOS)
    assert np.abs(frames[-1][30 : 30 + 192, 10 : 10 + 192].astype(int) - np.asarray(final).astype(int)).mean() < 8


def test_without_pyav_an_mp4_costs_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'mindseye\[video\]'"):
        film(run, tmp_path / "iterations.mp4", "mp4", 4)
    assert not (tmp_path / "iterations.mp4").exists()


def test_long_or_strange_names_of_figures_stay_different():
    long = "fig5_flow_k_" + ",".join(f"objective.matching.weight={n}" for n in range(9))
    names = [long + "1", long + "2", "fig5_flow_k_root=a/b", "fig5_flow_k_root=a:b", "fig5_flow_k", "fig5_flow_k_C=4"]
    files = [_file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert files[-2:] == names[-2:]
    assert all(len(file) <= LONGEST and "/" not in file for file in files)
