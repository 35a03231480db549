"""`mindseye facets C=2..12`: how many kinds of photographs there are, before anything is drawn."""

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
