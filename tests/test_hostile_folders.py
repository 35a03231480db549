"""Files of somebody else: nothing in them is run, and nothing of them leads out of their folder."""

import io
import json
import os
import pickle
import shutil
import signal
import sys
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import mindseye as me
from mindseye.commands.checking import check
from mindseye.commands.composing import ConfigurationError, compose
from mindseye.commands.constructors import check_constructors
from mindseye.commands.figures import figures
from mindseye.commands.gallery import make_gallery
from mindseye.commands.main import main
from mindseye.commands.repeating import read_earlier
from mindseye.commands.report import report
from mindseye.facets import FacetTargets
from mindseye.facets.cache import Cache
from mindseye.facets.photographs import UnreadablePhotograph, read_photograph
from mindseye.networks.weight_files import read_state_dict
from mindseye.results.pictures import from_picture
from mindseye.results.run_folder import read_run, snapshot_files
from mindseye.results.run_status import read_status
from mindseye.sweeps.manifest import Manifest, add_cells
from mindseye.sweeps.status import read_sweep
from mindseye.sweeps.summary import read_rows
from mindseye.visualizer.checkpoints import Checkpoint, read_state, write_state


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.open, (str(self.mark), os.O_CREAT | os.O_WRONLY)


def traps(mark):
    """A trap in every dress that a pickle can come in, by name."""
    plain = pickle.dumps(Trap(mark))
    saved, oldest, zipped, array = (io.BytesIO() for _ in range(4))
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "trap": Trap(mark)}, saved)
    torch.save({"trap": Trap(mark)}, oldest, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3")
        archive.writestr("../../escaped", "out")
    np.save(array, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    command = f"!!python/object/apply:os.open ['{mark}', 65]\n".encode()
    return {
        "plain": plain, "saved": saved.getvalue(), "oldest": oldest.getvalue(), "zipped": zipped.getvalue(),
        "array": array.getvalue(), "yaml": command,
    }  # fmt: skip


def test_the_trap_springs_where_it_is_unpickled(tmp_path):
    mark = tmp_path / "sprung"
    os.close(pickle.loads(pickle.dumps(Trap(mark))))
    assert mark.exists()


@pytest.fixture(scope="module")
def whole_run(network, targets, tmp_path_factory):
    sweep = tmp_path_factory.mktemp("sweep")
    [cell] = add_cells(sweep, [("k=8",)], ["k=8"], "0" * 64)
    result = me.visualize(network, targets, me.Method(steps=2), me.Running(snapshots=1, accelerator="cpu"))
    place = result.save(sweep / cell.folder, config="k: 8\n")
    targets.save(place / "targets")
    (place / "status.json").write_text(json.dumps({"status": "completed", "overrides": ["k=8"]}))
    return sweep


@pytest.fixture
def copy(whole_run, tmp_path):
    """A sweep of one run, to be spoilt: (sweep, run folder)."""
    shutil.copytree(whole_run, tmp_path / "sweep")
    [place] = [path for path in (tmp_path / "sweep").iterdir() if path.is_dir()]
    return tmp_path / "sweep", place


READ = (ValueError, OSError, UnreadablePhotograph)


def swallow(call, *arguments):
    """What it gives, or its one line."""
    message = ""
    try:
        return call(*arguments)
    except READ as error:
        message = str(error)
    except SystemExit as end:
        return end.code
    assert "\n" not in message.strip()
    return message


@pytest.mark.parametrize("kind", ["plain", "saved", "oldest", "zipped", "array", "yaml"])
def test_no_file_of_a_run_is_unpickled(copy, kind, tmp_path):
    sweep, place = copy
    mark = tmp_path / "sprung"
    content = traps(mark)[kind]
    files = [path for path in sweep.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(content)
        for reader in (read_run, read_status, snapshot_files, read_earlier):
            swallow(reader, place)
        swallow(from_picture, path)
        swallow(FacetTargets.load, place / "targets")
        swallow(Manifest.read, sweep)
        swallow(make_gallery, sweep)
        swallow(lambda: read_rows(read_sweep(sweep)))
        path.write_bytes(whole)
        assert not mark.exists(), path
    for path in (place / "targets/targets.json", place / "facets/00/nearest.png", sweep / "manifest.json"):
        path.write_bytes(content)  # by the commands themselves, which refuse before they draw
        assert isinstance(swallow(figures, [str(place)]), str)
        swallow(report, [str(sweep), "--by", "k"])
    assert not mark.exists()
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("kind", ["plain", "saved", "oldest", "zipped", "array", "yaml"])
def test_no_checkpoint_cache_entry_weights_or_photograph_is_unpickled(kind, tmp_path):
    mark = tmp_path / "sprung"
    content = traps(mark)[kind]
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    cache = Cache(tmp_path / "cache", 1 << 20)
    cache.fetch("kind", {"a": 1}, lambda: {"x": torch.zeros(2)})
    [entry] = (tmp_path / "cache").glob("*.safetensors")
    (tmp_path / "checkpoint").mkdir()
    weights = (tmp_path / f"weights{suffix}" for suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors"))
    for path in (checkpoint.file(), entry, *weights, tmp_path / "picture.npy", tmp_path / "picture.png"):
        path.write_bytes(content)
    swallow(read_state, checkpoint.file(), "key")
    checkpoint.check(1)
    assert cache.fetch("kind", {"a": 1}, lambda: {"x": torch.ones(2)}).made
    assert len(cache.entries()) == 1
    for path in tmp_path.glob("weights.*"):
        assert isinstance(swallow(read_state_dict, path), str)
        assert isinstance(swallow(lambda path=path: me.load_network("resnet18", weights=path)), str)
    for path in tmp_path.glob("picture.*"):
        assert isinstance(swallow(read_photograph, path, 8), str)
    assert not mark.exists()


def test_hydra_s_own_pickle_is_refused(tmp_path, capsys):
    mark = tmp_path / "sprung"
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(Trap(mark)))
    assert swallow(main, ["--experimental-rerun", str(tmp_path / "job.pickle")]) == 1
    assert "--from" in capsys.readouterr().err
    assert not mark.exists()


# ---- what is no file -------------------------------------------------------------------------------------------


class Waited(BaseException):
    """Not an Exception: nothing that reads may take it for a damaged file."""


@contextmanager
def within(seconds):
    def ring(signum, frame):
        raise Waited

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def put(kind, path, elsewhere):
    """In the place of a file: a pipe that nobody writes to, links to the file itself elsewhere and to a device, or a
    file of a terabyte that takes no room."""
    shutil.move(path, elsewhere)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(elsewhere if kind == "link" else "/dev/zero")


NO_FILES = ["pipe", "link", "device", "huge", "folder"]


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_of_a_run_is_not_read_or_waited_for(copy, kind, tmp_path):
    sweep, place = copy
    elsewhere = tmp_path / "elsewhere"
    written = (place / "status.json").read_text().replace("k=8", "k=8765")
    (place / "status.json").write_text(written)
    (place / "report.json").write_text(json.dumps({"by": "k=8765"}))
    files = [path for path in sweep.rglob("*") if path.is_file()]
    assert {"manifest.json", "status.json", "metrics.json", "config.yaml", "report.json", "0001.webp"} <= {
        path.name for path in files
    }
    for path in files:
        put(kind, path, elsewhere)
        with within(10):
            for reader in (read_run, read_status, snapshot_files, read_earlier):
                swallow(reader, place)
            swallow(FacetTargets.load, place / "targets")
            swallow(Manifest.read, sweep)
            if path.suffix in (".json", ".yaml", ".parquet"):
                for folder in (place, sweep):
                    swallow(make_gallery, folder)
                swallow(lambda: read_rows(read_sweep(sweep)))
        if path.name == "status.json":
            assert read_status(place).status == "waiting"
            assert "8765" not in make_gallery(place).read_text()
        if path.name == "manifest.json":
            with pytest.raises(ValueError, match="no readable manifest"):
                Manifest.read(sweep)
        if path.name in ("status.json", "metrics.json", "config.yaml"):
            with pytest.raises(ConfigurationError, match="--from"):
                read_earlier(place)
        if path.name in ("metrics.json", "images.safetensors", "history.parquet"):
            with pytest.raises(ValueError, match=r"damaged|no completed run"):
                read_run(place)
        if path.name == "0001.webp" and kind != "huge":
            with pytest.raises(ValueError, match="same steps"):
                snapshot_files(place)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        shutil.move(elsewhere, path)


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_entry_of_the_cache_and_no_checkpoint_is_not_waited_for(kind, tmp_path):
    cache = Cache(tmp_path / "cache", 1 << 20)
    key = {"a": 1}
    for number in range(2):
        cache.fetch("kind", key, lambda: {"x": torch.zeros(2)})
        [entry] = (tmp_path / "cache").glob("*.safetensors")
        put(kind, entry, tmp_path / "elsewhere")
        with within(10):
            cache.entries()
            if number:
                cache.fill("kind", {"a": key}, lambda missing: [(name, {"x": torch.ones(2)}) for name in missing])
            assert torch.equal(cache.fetch("kind", key, lambda: {"x": torch.ones(2)}).tensors["x"], torch.ones(2))
        if kind == "folder":  # which is not ours to delete
            entry.rmdir()
    state = tmp_path / "state.safetensors"
    write_state(state, "key", {"a": 1})
    assert read_state(state, "key") == {"a": 1}
    put(kind, state, tmp_path / "elsewhere")
    with within(10), pytest.raises(ValueError, match="cannot be read"):
        read_state(state, "key")


# ---- ways out of the folder ------------------------------------------------------------------------------------


SECRET = (250, 1, 200)


@pytest.fixture
def secret(tmp_path):
    """A folder that no run folder has to do with, with a picture and a run in it."""
    place = tmp_path / "secret"
    place.mkdir()
    for name in ("visualization.png", "nearest.png", "initial.png", "0001.webp", "a.png"):
        Image.new("RGB", (48, 48), SECRET).save(place / name, lossless=True)
    return place


def test_links_in_a_run_are_not_followed(copy, whole_run, secret):
    sweep, place = copy
    replaced = [
        "facets/00/nearest.png", "facets/01/steps/0001.webp", "facets/02", "facets",
        "targets", "targets/targets.safetensors", "images.safetensors", "metrics.json", "history.parquet",
    ]  # fmt: skip
    for name in replaced:
        shutil.rmtree(place)
        shutil.copytree(whole_run / place.name, place)
        path = place / name
        elsewhere = secret / ("moved" if path.is_dir() else path.name)
        shutil.rmtree(secret / "moved", ignore_errors=True)
        if path.is_dir():
            shutil.copytree(path, elsewhere)
            shutil.rmtree(path)
        else:
            if path.suffix not in (".png", ".webp"):
                shutil.copy(path, elsewhere)
            path.unlink()
        path.symlink_to(elsewhere)
        shutil.rmtree(place / "figures", ignore_errors=True)
        message = swallow(figures, [str(place)])
        if name != "facets/01/steps/0001.webp":
            assert isinstance(message, str), name
            assert "link" in message or "missing" in message or "same steps" in message, (name, message)
        page = make_gallery(sweep).read_text()
        overview = json.loads(page.partition('id="overview">')[2].partition("</script>")[0])
        [run] = overview["runs"]
        if name == "facets/00/nearest.png":
            assert run["facets"][0]["pictures"] == ["visualization", "initial"]
        if name in ("facets", "facets/02"):
            assert run["facets"][2]["pictures"] == []


def test_a_run_that_is_a_link_is_not_read_from_outside_the_sweep(copy, tmp_path):
    sweep, place = copy
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    [row] = read_rows(read_sweep(sweep))
    assert row["status"] == "failed"
    assert "leads out of the folder" in make_gallery(sweep).read_text()
    with pytest.raises(ValueError, match="no two completed cells"):
        figures([str(sweep)])


@pytest.mark.parametrize("name", ["../secret/a.png", "/etc/passwd", "photographs/../../secret/a.png", "a\\..\\b.png"])
def test_photographs_named_outside_are_text(copy, name):
    sweep, place = copy
    for file in place.glob("facets/*/photographs.json"):
        file.write_text(json.dumps([{"path": name, "weight": 1.0, "distance": 0.0}]))
    page = make_gallery(sweep).read_text()
    assert f'src="{name}' not in page
    assert json.dumps(name)[1:-1] in page  # and the page's own script makes no address of it, see photographSource


@pytest.mark.parametrize("folder", ["../x", "/etc", "a/b", "..", ".", "", "a\x00b"])
def test_no_cell_lies_outside_its_sweep(copy, folder):
    sweep, _ = copy
    manifest = json.loads((sweep / "manifest.json").read_text())
    manifest["cells"][0]["folder"] = folder
    (sweep / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="no readable manifest"):
        Manifest.read(sweep)


MADE = '{_target_: mindseye.networks.CallableSource, target: "evil.py:build", mean: [0], std: [1]}'
WORDS = {
    "a target": ["network=callable", "network.target=evil.py:build", "network.mean=[0.5]", "network.std=[0.5]"],
    "a judge's target": ["transfer=callable", "transfer.callable.target=evil.py:build"],
    "a checkpoint's": ["network=checkpoint", "network.path=a.pth", "network.target=evil.build"],
    "a constructor": ["objective._target_=evil.build"],
    "in a mapping": ["+objective.gain={_target_: evil.build}"],
    "in a list": ["+canvas.more=[{_target_: evil.build}]"],
    "as a group": ["canvas={_target_: evil.build}"],
    "its first arguments": ["network._args_=[evil.py:build]", "network=callable"],
    "a measure": ["+metrics.own._target_=evil.build"],
    "by a function of ours": ["+metrics.own._target_=mindseye.networks.CallableSource", "+metrics.own.target=a.b"],
    "made by a resolver": [f"+filters.own='${{oc.create:{MADE}}}'"],
    "in place of a number": [f"objective.gain='${{oc.create:{MADE}}}'"],
    "as a number": ["k=${oc.env:PWD}"],
    "decoded": ["+filters.own='${oc.decode:\"{_target_: evil.build}\"}'"],
    "escaped": ["+filters.own=$\\{oc.create:x\\}"],
    "in a key": ["+filters.own={$\\{k\\}: 1}"],
    "of another place": ["+filters.own=${network}"],
    "in a list of a list": ["+canvas.more=[[1, '${oc.env:PATH}']]"],
    "a cast": ["+filters.own=str('${oc.create:x}')"],
    "a sweep": ["k=1,2"],
    "a choice": ["k=choice(1,2)"],
    "a glob": ["network=glob(*)"],
    "another package": ["+network@hydra.launcher=demo"],
    "the root's package": ["+network@_global_=demo"],
    "a file of settings": ["network=../../evil"],
    "an absolute one": ["network=/evil"],
    "a list of them": ["transfer=[demo,../evil]"],
    "a key of Hydra's": ["network._recursive_=false"],
    "arguments": ["+network.arguments={repo: evil}"],
    "no group of ours": ["+evil=demo"],
    "a flag": ["--experimental-rerun=x.pickle"],
    "a folder of settings": ["--config-dir=/evil"],
    "a search path": ["hydra.searchpath=[file:///evil]"],
    "more of it": ["++hydra.searchpath=[file:///evil]"],
    "a callback": ["hydra.callbacks.evil._target_=evil.build"],
    "a log": ["hydra.job_logging.handlers.file.filename=/evil"],
    "a launcher": ["hydra/launcher=evil"],
    "a deletion": ["~network"],
    "no word": [""],
}


@pytest.mark.parametrize("overrides", WORDS.values(), ids=WORDS)
def test_a_run_folder_s_own_word_imports_nothing(copy, overrides, tmp_path, monkeypatch):
    _, place = copy
    mark = tmp_path / "sprung"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef build(*a, **k): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    status = json.loads((place / "status.json").read_text())
    (place / "status.json").write_text(json.dumps({**status, "overrides": overrides}))
    with pytest.raises(ConfigurationError) as told:
        read_earlier(place).overrides_beside(["steps=1"])
    assert "\n" not in str(told.value)
    assert not mark.exists()


def test_nothing_of_a_run_folder_is_called_with_words_that_nobody_saw(copy):
    """Code that is given again is not called with arguments that the folder alone says."""
    _, place = copy
    status = json.loads((place / "status.json").read_text())
    words = ["k=8", "+metrics.own._target_=torch.hub.load", "+metrics.own.repo_or_dir=evil"]
    (place / "status.json").write_text(json.dumps({**status, "overrides": words}))
    with pytest.raises(ConfigurationError, match=r"repo_or_dir=evil"):
        read_earlier(place).overrides_beside(["+metrics.own._target_=torch.hub.load"])
    assert read_earlier(place).overrides_beside(words[1:]) == ["k=8"]


def test_what_a_folder_would_have_typed_is_in_quotes(copy):
    _, place = copy
    status = json.loads((place / "status.json").read_text())
    word = "network.target=a.b;$(touch evil)\x1b[31m"
    (place / "status.json").write_text(json.dumps({**status, "overrides": [word]}))
    with pytest.raises(ConfigurationError) as told:
        read_earlier(place).overrides_beside([])
    assert "'network.target=a.b;$(touch evil)" in str(told.value)
    assert str(told.value).isprintable()


def test_a_package_that_is_not_installed_is_not_taken_from_somebody_s_folder(tmp_path, monkeypatch):
    """`import timm`, where it is missing, would else find timm.py in the folder that one has gone to look into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for words in (["network=timm", "network.name=resnet18"], ["logger=[wandb,tensorboard]"], ["facets.tsne=fft"]):
        check_constructors(check(compose(words)).parts)
        assert str(tmp_path) not in sys.path
    (tmp_path / "mine_alone.py").write_text("def contrast(images, activations, targets): ...")
    check_constructors(check(compose(["+metrics.own._target_=mine_alone.contrast"])).parts)
    assert str(tmp_path) in sys.path  # code of one's own that the configuration names is looked for there


def test_a_configuration_that_multiplies_itself_is_refused(copy):
    _, place = copy
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'{key}: *a{n - 1}' for key in 'pqrstuvw')}}}" for n in range(1, 12)]
    (place / "config.yaml").write_text("\n".join(lines))
    with within(10), pytest.raises(ConfigurationError, match="aliases"):
        read_earlier(place)


def test_a_run_folder_does_not_say_where_files_go_or_who_is_told(copy, capsys):
    _, place = copy
    status = json.loads((place / "status.json").read_text())
    words = [
        "k=8", "logger=[csv,wandb]", "logger.csv.save_dir=/elsewhere", "logger.wandb.offline=false",
        "cache.folder=/elsewhere", "cache=off",
    ]  # fmt: skip
    (place / "status.json").write_text(json.dumps({**status, "overrides": words}))
    assert read_earlier(place).overrides_beside([]) == ["k=8"]
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words[1:])
    # A user's own choice is not mixed with the folder's.
    assert read_earlier(place).overrides_beside(["logger=csv", "cache=on"]) == ["k=8"]
    assert capsys.readouterr().err == ""
