"""scripts/real_network.py: crops that come out again, a sheet of what was drawn, and an end where a run failed."""

import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import real_network
from PIL import Image
from real_network import GAP, LEFT, ROWS, SIDE, TILE, WHOLE, draw, sheet, write_crops


def test_crops_come_out_again(tmp_path, monkeypatch):
    monkeypatch.setattr(real_network, "CROPS", 3)
    for name in ("once", "again"):
        write_crops(tmp_path / name)
    once = sorted((tmp_path / "once").iterdir())
    assert len(once) == len(WHOLE) * 3
    assert len({file.read_bytes() for file in once}) == len(once)
    for file in once:
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
        with Image.open(file) as crop:
            assert crop.size == (SIDE, SIDE)


def test_a_row_a_way_and_a_column_a_facet(tmp_path, monkeypatch):
    monkeypatch.setattr(real_network, "read_run", lambda _: SimpleNamespace(images=[0, 1]))
    for shade, ablation in enumerate(ROWS, 1):
        for c in range(2):
            place = tmp_path / ablation / "facets" / f"{c:02d}"
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8), (0, c, 0)).save(place / "nearest.png")
            Image.new("RGB", (8, 8), (shade, c, 0)).save(place / "visualization.png")
    picture = np.asarray(sheet({ablation: tmp_path / ablation for ablation in ROWS}))
    for row in range(1 + len(ROWS)):
        for c in range(2):
            y, x = row * (TILE + GAP) + TILE // 2, LEFT + c * (TILE + GAP) + TILE // 2
            assert picture[y, x].tolist() == [row, c, 0]


def test_it_ends_as_the_run_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 3))
    with pytest.raises(SystemExit) as ended:
        draw(tmp_path)
    assert ended.value.code == 3
