"""Layers surveyed together leave in the cache what each would leave alone, and cost one pass."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mindseye.facets import discover_facets, load_photographs
from mindseye.facets import survey as survey_module
from mindseye.facets.cache import Cache
from mindseye.facets.survey import Passing, survey, survey_together
from mindseye.networks import Network, demo_network
from mindseye.settings import Facets

LAYERS = ("layer1.0", "layer2.0", "layer3.0.conv1", "layer4.0")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "together", 10**9)


@pytest.fixture
def alone(tmp_path):
    return Cache(tmp_path / "alone", 10**9)


def kept(cache):
    """Every entry by its address: kind, key and tensors."""
    return {entry.path.name: (entry.kind, entry.key, cache._read(entry.path)) for entry in cache.entries()}


def layers_in(cache):
    return {entry.key["layer"] for entry in cache.entries()}


def assert_alike(one, other):
    mine, others = kept(one), kept(other)
    assert mine.keys() == others.keys()
    for name, (kind, key, tensors) in mine.items():
        assert (kind, key) == others[name][:2]
        assert tensors.keys() == others[name][2].keys()
        for part, tensor in tensors.items():
            assert tensor.dtype == others[name][2][part].dtype
            # bits, since NaN is not NaN
            assert tensor.numpy().tobytes() == others[name][2][part].numpy().tobytes(), (key["layer"], part)


@contextmanager
def counting(convolution):
    """The sizes of the batches that enter a convolution of that shape, whoever made it.

    Probes are single images, or a few of which the first is white.
    """
    batches = []

    def enter(module, arguments):
        alike = isinstance(module, nn.Conv2d) and module.weight.shape == convolution.weight.shape
        seen = arguments[0]
        if not alike or not isinstance(seen, torch.Tensor) or len(seen) <= 2 or seen.is_meta:
            return
        if seen[0].flatten(1).std(dim=1).any():
            batches.append(len(seen))

    handle = nn.modules.module.register_module_forward_pre_hook(enter)
    try:
        yield batches
    finally:
        handle.remove()


def test_the_same_entries_as_one_by_one(network, photographs, cache, alone):
    passing = Passing(batch_size=7, keep_maps=4 * len(photographs) * 48 * 12 * 12)  # those of layer1.0 are larger
    survey_together(network, photographs, LAYERS, passing, cache=cache)
    for layer in LAYERS:
        survey(network, photographs, layer, passing, cache=alone)
    assert_alike(cache, alone)
    with_maps = {key["layer"] for _, key, tensors in kept(cache).values() if "maps" in tensors}
    assert (layers_in(cache), with_maps) == (set(LAYERS), set(LAYERS[1:]))


def test_photographs_enter_the_network_once_for_all_layers(photographs, cache):
    network = demo_network()
    with counting(network.body.conv1) as batches:
        survey_together(network, photographs, LAYERS, cache=cache)
        assert sum(batches) == len(photographs)
        survey_together(network, photographs, LAYERS, cache=cache)  # it is all there
        discover_facets(network, photographs, LAYERS[2], Facets(C=3, k=8, N=4, way=()), cache=cache)
        assert sum(batches) == len(photographs)
        survey_together(network, photographs, (*LAYERS, "layer3.0", "layer3.0"), cache=cache)  # one is not
        assert sum(batches) == 2 * len(photographs)
        for k in (8, 4):  # those that stand for facets once more, for what the layers on the way answer to them
            discover_facets(network, photographs, LAYERS[2], Facets(C=3, k=k, N=4), cache=cache)
            assert sum(batches) == 2 * len(photographs) + 3 * 4


def test_only_what_is_not_there_is_looked_at(photographs, cache, alone):
    network = demo_network()
    survey(network, photographs, "layer4.0", cache=cache)
    with counting(network.body.layer2[0].conv1) as batches:
        survey_together(network, photographs, ("layer1.0", "layer4.0"), cache=cache)
    assert batches == []  # only layer1.0 was missing, and nothing past it was computed
    for layer in ("layer1.0", "layer4.0"):
        survey(network, photographs, layer, cache=alone)
    assert_alike(cache, alone)


def test_without_a_cache_nothing_is_done(photographs):
    network = demo_network()
    with counting(network.body.conv1) as batches:
        survey_together(network, photographs, LAYERS)
    assert batches == []


def test_layers_that_keep_too_much_for_one_pass(photographs, cache, alone, monkeypatch):
    network = demo_network()
    M = len(photographs)
    largest = 4 * M * (24 * 24 * 24 + 24)  # layer1.0 at 48 pixels
    monkeypatch.setattr(survey_module, "TOGETHER", largest)  # layer1.0 | the other three
    counts = []
    with counting(network.body.conv1) as batches:
        tell = lambda done, total: counts.append((done, total))  # noqa: E731
        survey_together(network, photographs, LAYERS, Passing(progress=tell), cache=cache)
    assert sum(batches) == 2 * M
    assert counts == sorted(counts)
    assert counts[-1] == (2 * M, 2 * M)
    for layer in LAYERS:
        survey(network, photographs, layer, cache=alone)
    assert_alike(cache, alone)


def test_what_the_cache_would_not_keep_is_not_looked_at(network, photographs, tmp_path, caplog):
    small = Cache(tmp_path / "cache", 4 * len(photographs) * 96 * 6 * 6)
    with caplog.at_level(logging.INFO):
        survey_together(network, photographs, ("layer1.0", "layer3.0.conv1", "fc"), cache=small)
    assert layers_in(small) == {"fc"}
    assert "layer layer1.0 is not looked at together with others" in caplog.text


class Odd(nn.Module):
    """Layers of every kind that a survey refuses, among others that it takes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Unflatten(1, (2, 2))  # [B, 2, 2, H, W]
        self.root = nn.Softplus()
        self.log = Log()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.large = nn.Conv2d(4, 2, 15)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, images):
        x = self.norm(self.first(images))
        self.deep(x)
        self.flat(self.log(self.pool(images) - 0.3))  # no number for a dark photograph
        return self.large(self.root(x))


class Log(nn.Module):
    def forward(self, x):
        return x.log()


def odd(size=24):
    return Network(Odd(), (0.0,) * 3, (1.0,) * 3, "odd", size)


@pytest.fixture
def noise(tmp_path):
    (tmp_path / "noise").mkdir()
    for i in range(9):
        array = np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "noise" / f"{i}.png")
    (tmp_path / "noise" / "4a.png").write_bytes(b"no picture")
    return tmp_path / "noise"


def test_a_layer_that_gives_nothing_to_keep_does_not_stop_the_others(noise, cache, alone, caplog):
    right = ("first", "norm", "root")
    wrong = {"deep": "maps", "log": "NaN", "flat": "NaN", "unused": "no part", "large": "cannot look at 16×16"}
    Image.new("RGB", (24, 24)).save(noise / "dark.png")
    photographs = load_photographs(noise, 16)
    with caplog.at_level(logging.INFO):
        survey_together(odd(), photographs, (*wrong, *right), cache=cache)
    for layer, reason in wrong.items():
        [line] = [line for line in caplog.messages if line.startswith(f"layer {layer} is not looked at together")]
        assert reason in line
        with pytest.raises(ValueError, match=reason):
            survey(odd(), photographs, layer, cache=alone)
    for layer in right:
        survey(odd(), photographs, layer, cache=alone)
    assert_alike(cache, alone)
    assert layers_in(cache) == set(right)


def test_unreadable_files_are_left_out_as_alone(noise, cache, alone, caplog):
    photographs = load_photographs(noise, 24)
    survey_together(odd(), photographs, ("first", "root"), Passing(batch_size=4), cache=cache)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "skipped 4a.png" in caplog.text
    for layer in ("first", "root"):
        survey(odd(), photographs, layer, Passing(batch_size=4), cache=alone)
        recalled = survey(odd(), photographs, layer, Passing(batch_size=4), cache=cache)
        assert recalled.recalled
        assert [file.path for file in recalled.photographs.skipped] == ["4a.png"]
        assert len(recalled.means) == 9
    assert_alike(cache, alone)


def test_no_readable_photograph_is_for_the_single_survey_to_say(noise, cache, caplog):
    for path in noise.iterdir():
        path.write_bytes(b"no picture")
    with caplog.at_level(logging.INFO):
        survey_together(odd(), load_photographs(noise, 24), ("first", "root"), cache=cache)
    assert "none of the 10 photographs" in caplog.text
    assert list(cache.folder.iterdir()) == []


class Moody(nn.Module):
    """What it computes depends on the image: no tracer can follow."""

    def __init__(self):
        super().__init__()
        self.first, self.bright, self.dark = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.end = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.end(self.bright(x) if x.mean() > 0 else self.dark(x))


def test_what_runs_by_hooks_is_left_to_its_own_survey(noise, cache, alone, caplog):
    network = Network(Moody(), (0.0,) * 3, (1.0,) * 3, "moody", 24)
    photographs = load_photographs(noise, 24)
    with caplog.at_level(logging.INFO):
        survey_together(network, photographs, ("first", "end"), cache=cache)
    assert layers_in(cache) == {"first"}  # up to there it can be followed
    assert "layer end is not looked at together with others: moody runs by hooks" in caplog.text
    for layer in ("first", "end"):
        for place in (cache, alone):
            survey(network, photographs, layer, cache=place)
    assert_alike(cache, alone)


def test_an_unknown_layer_is_refused(network, photographs, cache):
    with pytest.raises(ValueError, match="there is no layer 'layer9'"):
        survey_together(network, photographs, ("layer1.0", "layer9"), cache=cache)


class Residual(nn.Module):
    """By the names of its children: those of the paper count from the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, nn.Conv2d(3, 3, 1))

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


def test_a_spelling_of_the_paper_is_the_same_entry(noise, cache):
    network = Network(Residual(), (0.0,) * 3, (1.0,) * 3, "residual", 24)
    survey_together(network, load_photographs(noise, 24), ("4", "5", "layer2"), cache=cache)
    assert layers_in(cache) == {"layer1", "layer2"}
    assert survey(network, load_photographs(noise, 24), "layer2", cache=cache).recalled


# ---- many processes --------------------------------------------------------------------------------------------

ASK = """
import logging, os, sys, time
import torch
from mindseye.facets import load_photographs, survey
from mindseye.facets import survey as survey_module
from mindseye.facets.cache import Cache
from mindseye.networks import demo_network

folder, root, record, gate, stall, *layers = sys.argv[1:]
look = survey_module._look

def slow(network, *arguments):
    with open(record, "a") as file:
        file.writelines(f"{os.getpid()} {layer}\\n" for layer in network.layers)
    time.sleep(120 if stall == "stall" else 1)
    return look(network, *arguments)

survey_module._look = slow
network, photographs = demo_network(), load_photographs(root, 48)
print("ready", flush=True)
while not os.path.exists(gate):
    time.sleep(0.01)
survey_module.survey_together(network, photographs, layers, cache=Cache(folder, 10**9))
"""


def asking(cache, root, tmp_path, layers, stall=False):
    return subprocess.Popen(
        [sys.executable, "-c", ASK, *map(str, (cache.folder, root, tmp_path / "record", tmp_path / "gate")),
         "stall" if stall else "go", *layers],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.long
def test_several_processes_look_at_each_layer_once(photograph_folder, network, photographs, tmp_path, cache, alone):
    sets = [LAYERS[:2], LAYERS[:0:-1], LAYERS]
    processes = [asking(cache, photograph_folder, tmp_path, layers) for layers in sets]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        (tmp_path / "gate").touch()
        for process in processes:
            assert process.communicate(timeout=100)[1].count("Traceback") == 0
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    looked = [line.split()[1] for line in (tmp_path / "record").read_text().splitlines()]
    assert sorted(looked) == sorted(LAYERS)
    for layer in LAYERS:
        survey(network, photographs, layer, cache=alone)
    assert_alike(cache, alone)


def test_one_that_is_killed_holds_nobody_up(photograph_folder, network, photographs, tmp_path, cache, alone):
    (tmp_path / "gate").touch()
    record = tmp_path / "record"
    process = asking(cache, photograph_folder, tmp_path, LAYERS, stall=True)
    try:
        end = time.monotonic() + 60
        while not (record.exists() and len(record.read_text().splitlines()) == len(LAYERS)):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert len(list(cache.folder.glob("*.lock"))) == len(LAYERS)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        begun = time.monotonic()
        survey_together(network, photographs, LAYERS, cache=cache)
        assert time.monotonic() - begun < 15  # a dead process of this host is found out at once
    finally:
        process.kill()
        process.communicate()
    for layer in LAYERS:
        survey(network, photographs, layer, cache=alone)
    assert_alike(cache, alone)
    assert {path.suffix for path in cache.folder.iterdir()} == {".safetensors"}
