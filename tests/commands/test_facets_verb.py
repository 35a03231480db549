"""`mindseye facets C=2..12`: how many kinds of photographs there are, before anything is drawn."""

import shutil

import pytest
from PIL import Image

from mindseye.commands.facets import wanted
from mindseye.commands.main import main


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
