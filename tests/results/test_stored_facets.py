"""The facets of a run folder without their pictures: as they were kept, and refused in one line where damaged."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mindseye.results.stored_facets import read_stored_facets, worlds


def test_what_is_read_is_what_was_kept(targets, tmp_path):
    targets.save(tmp_path / "targets")
    stored = read_stored_facets(tmp_path)
    assert (stored.layer, stored.D, stored.paths) == (targets.layer, targets.maps.shape[1], targets.paths)
    for name in ("embedding", "labels", "centres", "chosen", "weights", "channels"):
        assert np.array_equal(getattr(stored, name), getattr(targets, name).numpy()), name


def test_a_folder_without_facets_is_told_from_a_damaged_one(targets, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_stored_facets(tmp_path)
    targets.save(tmp_path / "targets")
    whole = (tmp_path / "targets/targets.safetensors").read_bytes()
    (tmp_path / "targets/targets.safetensors").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match="damaged"):
        read_stored_facets(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(paths=said["paths"][:-1]),
        lambda said: said.update(paths=[said["paths"][0]] * len(said["paths"])),
        lambda said: said.update(paths=7),
        lambda said: said.pop("layer"),
    ],
)
def test_names_that_do_not_fit_are_refused(change, targets, tmp_path):
    targets.save(tmp_path / "targets")
    about = json.loads((tmp_path / "targets/targets.json").read_text())
    change(about)
    (tmp_path / "targets/targets.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="damaged"):
        read_stored_facets(tmp_path)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("labels", {"data_offsets": [0, 10**15]}), ("labels", {"shape": [-1, -24]}), ("channels", {"dtype": "F32"}),
        ("chosen", {"shape": []}), ("maps", {"shape": "no"}), ("centres", None),
        ("embedding", {"data_offsets": ["a", "b"]}),
    ],
)  # fmt: skip
def test_a_header_of_nonsense_is_refused(name, entry, targets, tmp_path):
    targets.save(tmp_path / "targets")
    file = tmp_path / "targets/targets.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if entry is None:
        del header[name]
    else:
        header[name] |= entry
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ValueError, match="damaged"):
        read_stored_facets(tmp_path)


def test_a_link_is_not_followed(targets, tmp_path):
    targets.save(tmp_path / "elsewhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/targets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        read_stored_facets(tmp_path / "run")


def test_of_one_world_are_the_same_bytes_or_the_same_folder(targets, tmp_path):
    def kept(name, **changes):
        replace(targets, **changes).save(tmp_path / name / "targets")
        return read_stored_facets(tmp_path / name)

    some = range(len(targets.paths) - 2)
    part = {"paths": targets.paths[:-2], "labels": targets.labels[some], "embedding": targets.embedding[some]}
    part |= {"chosen": targets.chosen % 2}
    part |= {name: torch.empty(0) for name in ("firmness", "agreement", "stays")}
    whole = kept("whole", root="/a", content="x")
    moved = kept("moved", root="/b", content="x")  # the same bytes elsewhere
    drawn = kept("drawn", root="/b", content="y")  # other bytes under the same names
    held = kept("held", root="/a", content="z", **part)  # without those held out
    other = kept("other", root="/c", content="", **part)
    assert worlds([whole, moved, drawn, held, other, whole]) == [0, 0, 1, 0, 2, 0]
    assert worlds([]) == []
