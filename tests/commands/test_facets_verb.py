"""`mindseye facets C=2..12`: how many kinds of photographs there are, before anything is drawn."""

import shutil

import pytest
import torch
from PIL import Image

from mindseye.commands.facets import look, wanted
from mindseye.commands.main import main
from mindseye.facets import discover_facets, grouping, load_photographs
from mindseye.networks import load_network
from mindseye.settings import Facets


def test_the_demo_has_its_four_kinds(tmp_path, capsys):
    picture = tmp_path / "number.png"
    main(["facets", "C=3,4", "images.count=48", "cache=off", "--picture", str(picture)])
    printed = capsys.readouterr().out
    assert "→ 4" in printed
    assert "C=4 tells kinds apart best" in printed
    assert Image.open(picture).width > 600


@pytest.mark.parametrize("text", ["1..4", "2..101", "4..2", "two", "2..", "", "0"])
def test_no_range_is_refused_in_one_line(text, capsys):
    with pytest.raises(SystemExit):
        main(["facets", f"C={text}", "cache=off"])
    assert "a range of 2..100" in capsys.readouterr().err
    assert wanted("2..4") == [2, 3, 4]


def test_it_looks_where_it_is_told_and_its_picture_is_no_photograph(photograph_folder, monkeypatch, capsys):
    place = photograph_folder.with_name("k=4, of my own")
    shutil.copytree(photograph_folder, place)
    monkeypatch.chdir(place)
    words = [f"images.root={place}", "images.size=48", "C=2,3", "cache=off", "network.weights=null", "seed=3"]
    printed = []
    for _ in range(2):
        main(["facets", *words])
        printed.append(capsys.readouterr().out)
    assert (place / "number-of-facets.png").is_file()
    assert printed[0] == printed[1]  # of as many photographs, by the same weights


def test_it_tries_the_photographs_that_c_auto_of_a_run_tries(photograph_folder, monkeypatch):
    """Those that are held out take no part: N=1 makes 24 photographs ample for two C."""
    tried = []
    choose = grouping.choose_number

    def noted(points, *given, **named):
        tried.append(points)
        return choose(points, *given, **named)

    monkeypatch.setattr(grouping, "choose_number", noted)
    monkeypatch.setattr("mindseye.facets.discovery.MOST_KINDS", 2)
    monkeypatch.setattr("mindseye.facets.number.MOST_KINDS", 2)
    words = [f"images.root={photograph_folder}", "images.size=48", "cache=off", "facets.N=1", "layer=layer3.0"]
    _, title = look(words, [2, 3])
    photographs = load_photographs(photograph_folder, 48)
    run = discover_facets(load_network("demo"), photographs, "layer3.0", Facets(C="auto", k=4, N=1))
    assert torch.equal(*tried)
    assert title.endswith(f"· {len(run.paths)} photographs")
    assert run.held_out
