"""Networks by name, file and dotted path: frozen, normalised by themselves, refused in one clear line."""

import argparse
import copy
import functools
import importlib
import inspect
import os
import re
import sys
import types
import urllib.error
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from mindseye import networks
from mindseye.networks import (
    CallableSource,
    CheckpointSource,
    Network,
    TimmSource,
    TorchvisionSource,
    load_network,
    record,
)
from mindseye.networks.hyperparameters import read_hyperparameters
from mindseye.networks.network import KNOWN_LAYERS
from mindseye.networks.sources import torchvision_models

CONFIGS = Path(__file__).parents[2] / "conf" / "network"
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}

OWN_MODULE = """
from torch import nn

class Small(nn.Module):
    def __init__(self, channels=3, width=4):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3)
        self.conv2 = nn.Conv2d(width, 2, 3)

    def forward(self, images):
        return self.conv2(self.conv1(images).relu())

def build(channels: int = 3, width: int = 4):
    return Small(channels, width)

def number():
    return 3
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a network of one's own, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_networks_here.py").write_text(OWN_MODULE)
    monkeypatch.delitem(sys.modules, "own_networks_here", raising=False)
    return tmp_path / "own_networks_here.py"


@pytest.fixture(scope="module")
def squeezenet() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return models.squeezenet1_1(weights=None, num_classes=7).state_dict()


def same_weights(network: Network, state: Mapping[str, Tensor]) -> bool:
    own = network.body.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


def refused(message: str, build: Callable[[], Network]) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        build()
    assert "\n" not in str(error.value)


# ---- the network itself -----------------------------------------------------------------------------------------


def test_frozen_and_in_evaluation_mode_for_ever() -> None:
    network = TorchvisionSource("resnet18", None).load()
    network.train()
    nn.ModuleList([network]).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    statistics = network.body.bn1.running_mean.clone()
    network(torch.rand(2, 3, 64, 64))
    assert torch.equal(network.body.bn1.running_mean, statistics)


def test_normalisation_is_the_networks_own() -> None:
    network = Network(nn.Identity(), mean=[0.25, 0.5], std=[0.5, 2.0], name="test")
    images = torch.rand(2, 2, 5, 5)
    expected = torch.stack([(images[:, 0] - 0.25) / 0.5, (images[:, 1] - 0.5) / 2.0], 1)
    assert torch.allclose(network(images), expected)
    assert network.channels == 2


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_normalisation_as_it_was_computed(kind: Callable) -> None:
    network = load_network(nn.Conv2d(2, 4, 3), mean=kind([0.25, 0.5]), std=kind([0.5, 2.0]))
    assert network.mean.flatten().tolist() == [0.25, 0.5]
    assert network.std.flatten().tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match="mean has 1 numbers and std 2"):
        load_network(nn.Conv2d(2, 4, 3), mean=kind([0.25]), std=kind([0.5, 2.0]))


def test_images_of_another_shape_are_refused() -> None:
    network = TorchvisionSource("squeezenet1_1", None).load()
    for shape in ((2, 1, 64, 64), (3, 64, 64), (2, 4, 64, 64)):
        with pytest.raises(ValueError, match=r"takes images \[B,3,H,W\]; these are \[" + str(shape[0])):
            network(torch.rand(shape))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.25], r"length of mean and std is 1, but the first convolution \(conv1\) takes 3 channels"),
        ([0.5] * 4, [0.25] * 4, "takes 3 channels: give as many numbers for each"),
        ([0.5] * 3, [0.25] * 2, "mean has 3 numbers and std 2"),
        ([], [], "mean has 0 numbers"),
        (0.5, 0.25, r"mean and std must be lists of one number per channel, \[0.5\] for one channel, not 0.5 and 0.25"),
        ([0.5] * 3, [0.25, 0.0, 0.25], "above 0"),
    ],
)
def test_wrong_normalisation(mean: list[float], std: list[float], message: str) -> None:
    refused(message, lambda: TorchvisionSource("resnet18", None, mean=mean, std=std).load())


def test_weights_that_were_forgotten_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n"
    )
    target = f"{tmp_path}/net.py:build"
    trained = load_network(target, **HALF).body
    assert "build has seen no training" in caplog.text
    assert "? weights=FILE" in caplog.text
    caplog.clear()
    trained.train()(torch.rand(2, 3, 8, 8))
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    load_network(target, weights=tmp_path / "net.pth", **HALF)
    load_network(nn.Conv2d(3, 4, 3), **HALF)
    assert not caplog.text


def test_the_first_convolution_is_the_first_one_called() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Conv2d(8, 2, 1)
            self.first = nn.Conv2d(1, 8, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.first(images))

    assert load_network(Reversed(), mean=[0.5], std=[0.5])(torch.rand(1, 1, 4, 4)).shape == (1, 2, 4, 4)


def test_resolve_layers_and_depths() -> None:
    network = TorchvisionSource("resnet50", None).load()
    assert network.resolve(depth="middle") == "layer3.5.conv1"
    assert network.resolve("layer6.5.conv1", depth="late") == "layer3.5.conv1"
    assert network.resolve("6.5.relu@1") == "layer3.5.relu@1"
    refused("names no layer for depth 'deep' .it has early, middle, late", lambda: network.resolve(depth="deep"))
    refused("give a layer, or a depth: early", network.resolve)
    refused("nearest names are .*layer3.5.conv1", lambda: network.resolve("layer3.5.conv7"))
    refused("there is no layer 'nope'", lambda: TorchvisionSource("resnet18", None, layers={"late": "nope"}).load())


def test_fingerprint_is_the_identity_of_the_weights() -> None:
    one = TorchvisionSource("squeezenet1_1", None).load()
    same = Network(copy.deepcopy(one.body), one.mean.flatten().tolist(), one.std.flatten().tolist(), one.name)
    assert one.fingerprint() == same.fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", one.fingerprint())
    before = one.fingerprint()
    assert one.to(memory_format=torch.channels_last).fingerprint() == before
    assert TorchvisionSource("squeezenet1_1", None).load().fingerprint() != before
    first, again = (load_network("squeezenet1_1", None).fingerprint() for _ in range(2))
    assert first == again != before
    same.body.features[3].squeeze.weight.data[0, 0] += 1e-6
    assert same.fingerprint() != before
    one.name = "other"
    assert one.fingerprint() != before


# ---- weights from files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_a_state_dict_comes_back_as_it_was(
    squeezenet: dict[str, Tensor], tmp_path: Path, suffix: str, prefix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    renamed = {prefix + key: value for key, value in squeezenet.items()}
    if suffix == ".safetensors":
        save_file(renamed, path)
    else:
        torch.save(renamed, path)
    network = TorchvisionSource("squeezenet1_1", path).load()
    assert same_weights(network, squeezenet)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 7)  # the number of classes is the file's


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_nested_state_dicts(squeezenet: dict[str, Tensor], tmp_path: Path, key: str) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, key: squeezenet, "optimizer": {"state": {}, "lr": 0.1}}, path)
    assert same_weights(TorchvisionSource("squeezenet1_1", str(path)).load(), squeezenet)


@pytest.mark.parametrize(("name", "own"), [("googlenet", "aux1.fc2.weight"), ("inception_v3", "AuxLogits.fc.weight")])
def test_auxiliary_heads_are_left_out(tmp_path: Path, name: str, own: str) -> None:
    state = models.get_model(name, weights=None, num_classes=5, init_weights=False).state_dict()
    assert own in state
    torch.save(state, tmp_path / "weights.pth")
    network = TorchvisionSource(name, tmp_path / "weights.pth").load()
    assert not any("aux" in key.lower() for key in network.body.state_dict())
    assert network.body.transform_input  # as with the published weights
    assert torch.equal(network.body.fc.weight, state["fc.weight"])


def test_densenets_old_names(tmp_path: Path) -> None:
    state = models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "weights.pth")
    assert same_weights(TorchvisionSource("densenet121", tmp_path / "weights.pth").load(), state)


def test_a_file_that_does_not_fit(squeezenet: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(squeezenet, path)
    refused(r"conv1.weight, .* and 99 more missing", lambda: TorchvisionSource("resnet18", path).load())
    torch.save({**squeezenet, "features.0.weight": torch.zeros(64, 3, 5, 5)}, path)
    refused(r"features.0.weight is \[64, 3, 5, 5\] there, \[64, 3, 3, 3\]", lambda: load_network("squeezenet1_1", path))
    torch.save({**squeezenet, "extra": torch.zeros(1)}, path)
    refused("does not fit squeezenet1_1: extra unknown", lambda: TorchvisionSource("squeezenet1_1", path).load())
    torch.save([1, 2], path)
    refused("holds no state dict", lambda: TorchvisionSource("squeezenet1_1", path).load())
    path.write_bytes(b"not a file of tensors")
    refused("weights.pth", lambda: TorchvisionSource("squeezenet1_1", path).load())
    path.with_suffix(".safetensors").write_bytes(b"short")
    refused("not a whole .safetensors", lambda: load_network("squeezenet1_1", path.with_suffix(".safetensors")))


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


class Shell(Malicious):
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


class Opened:
    def __init__(self, trace: str) -> None:
        Path(trace).touch()


class Called(Malicious):
    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Opened, (str(self.trace),)


def test_nothing_in_a_weights_file_is_run(squeezenet: dict[str, Tensor], tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    for kind in (Malicious, Shell):
        torch.save({**squeezenet, "hook": kind(trace)}, path)
        refused("holds objects besides tensors", lambda: TorchvisionSource("squeezenet1_1", path).load())
        assert not trace.exists()
    torch.save({**squeezenet, "hook": Called(trace)}, path)  # a class in whose place another stands
    assert same_weights(TorchvisionSource("squeezenet1_1", path).load(), squeezenet)
    assert not trace.exists()


# ---- names ------------------------------------------------------------------------------------------------------


def test_wrong_names() -> None:
    refused("no model 'resnet5O' of images; the nearest names are resnet50", lambda: load_network("resnet5O"))
    refused("no model 'r3d_18'", lambda: TorchvisionSource("r3d_18", None).load())
    refused("no weights 'IMAGENET': give null, IMAGENET1K_V1", lambda: TorchvisionSource("resnet18", "IMAGENET").load())
    refused("no weights file 'gone.pth'", lambda: TorchvisionSource("resnet18", "gone.pth").load())


def test_no_internet_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*arguments: object, **named: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused(r"cannot download the weights of resnet18.* weights=PATH", lambda: load_network("resnet18"))


def test_published_weights_bring_their_own_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """With mean, std and size null: the crop and the normalisation the weights were evaluated with, and the classes."""
    state = models.inception_v3(weights=None, init_weights=False).state_dict()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda entry, *arguments, **named: state)
    network = load_network("inception_v3")
    assert network.size == 299
    assert len(network.classes) == 1000
    assert network.classes[0] == "tench"
    assert torch.allclose(network.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


# ---- one's own networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["own_networks_here.build", "own_networks_here.py:build", "own_networks_here:Small"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_callables(own_file: Path, target: str, channels: int) -> None:
    mean, std = [0.5] * channels, [0.2] * channels
    network = CallableSource(target, {"channels": channels}, mean=mean, std=std, size=12).load()
    assert network.channels == channels
    with record(network, "conv1") as tape:
        assert tape(torch.rand(1, channels, 12, 12)).shape == (1, 4, 10, 10)
    assert str(own_file.parent) not in sys.path


def test_callables_take_weights_and_layers(own_file: Path) -> None:
    state = CallableSource("own_networks_here.build", **HALF).load().body.state_dict()
    torch.save({f"net.{key}": value for key, value in state.items()}, own_file.parent / "own.pth")
    network = CallableSource(
        "own_networks_here.build", weights="own.pth", layers={"late": "conv2"}, name="mine", **HALF
    ).load()
    assert same_weights(network, state)
    assert network.resolve(depth="late") == "conv2"
    assert network.name == "mine"


def test_wrong_callables(own_file: Path) -> None:
    for target, message in (
        ("own_networks_here.buidl", "no function 'buidl'; the nearest names are build"),
        ("own_networks_her.build", "cannot import 'own_networks_her'"),
        ("build", "names no function"),
        ("net.py", "'net.py' is a file: give net.py:FUNCTION"),
        ("gone.py:build", "there is no file 'gone.py'"),
        ("own_networks_here.number", "returned must be a torch.nn.Module, not an int"),
    ):
        refused(message, lambda target=target: CallableSource(target, **HALF).load())
    refused(
        "cannot be called with arguments .*got an unexpected keyword argument 'depth'",
        lambda: CallableSource("own_networks_here.build", {"depth": 3}, **HALF).load(),
    )
    refused("give mean and std", lambda: load_network("own_networks_here.build"))


def test_a_lightning_checkpoint(own_file: Path, squeezenet: dict[str, Tensor]) -> None:
    """As Lightning writes it: the network under an attribute of the module, other weights beside it."""
    import pytorch_lightning as pl

    own = CallableSource("own_networks_here.build", {"width": 6}, **HALF).load().body.requires_grad_(True)

    class Training(pl.LightningModule):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.backbone = own
            self.head = nn.Linear(2, 3)

        def training_step(self, batch: Tensor) -> Tensor:
            return self.head(self.backbone(batch).mean((2, 3))).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Training(6), torch.utils.data.DataLoader(torch.rand(2, 3, 8, 8)))
    trainer.save_checkpoint("last.ckpt")
    network = CheckpointSource("last.ckpt", "own_networks_here.build", {"width": 6}, **HALF).load()
    assert same_weights(network, own.state_dict())
    torch.save({"state_dict": {f"model.{key}": value for key, value in squeezenet.items()}}, "other.ckpt")
    network = CheckpointSource("other.ckpt", "squeezenet1_1", layers={"late": "features.12"}, name="mine").load()
    assert same_weights(network, squeezenet)
    assert network.name == "mine"
    refused("no weights file 'gone.ckpt'", lambda: CheckpointSource("gone.ckpt", "squeezenet1_1").load())


def test_a_module_itself() -> None:
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    network = load_network(body, mean=[0.5], std=[0.5], layers={"late": "1"})
    assert network.body is body
    assert network.resolve(depth="late") == "1"
    refused("give mean and std", lambda: load_network(body))


# ---- timm -------------------------------------------------------------------------------------------------------


def test_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    gray = TimmSource("resnet10t", None, mean=[0.5], std=[0.25]).load()
    assert gray(torch.rand(1, 1, 64, 64)).shape == (1, 1000)
    inception = TimmSource("inception_v3", None).load()
    assert inception.size == 299
    state = {
        f"module.{key}": value
        for key, value in TimmSource("resnet10t", None, num_classes=4).load().body.state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    own = load_network("timm/resnet10t", tmp_path / "weights.pth")
    assert own.body.num_classes == 4
    assert own.resolve("layer6.0.conv1") == "layer3.0.conv1"
    refused("timm has no model 'resnet10x'; the nearest names are resnet10t", lambda: TimmSource("resnet10x").load())


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    refused(r"pip install 'mindseye\[timm\]'", lambda: TimmSource("resnet18").load())


# ---- the configs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configs_keys_are_arguments_and_its_layers_exist(path: Path) -> None:
    config = OmegaConf.load(path)
    assert path.read_text().startswith("# ")
    package, function = config.pop("_target_").rsplit(".", 1)
    assert package == "mindseye.networks"
    config.pop("_convert_", None)
    build = getattr(networks, function)
    inspect.signature(build).bind(**dict.fromkeys(config))
    if OmegaConf.missing_keys(config):
        return
    config.weights = None
    load = (lambda: build(**config)) if path.stem == "demo" else build(**config).load
    # random weights of a hundred million parameters take seconds to draw, and names need none
    with torch.device("cpu" if path.stem == "demo" else "meta"):
        network = load()
    name = "demo" if path.stem == "demo" else config.name
    assert network.layers == dict(config.layers) == KNOWN_LAYERS[name]
    assert list(network.layers) == ["early", "middle", "late"]
    for depth in network.layers:
        assert network.resolve(depth=depth) == network.layers[depth]


def test_the_demo() -> None:
    network = load_network("demo", weights=None)
    assert network.name == "demo"
    assert network(torch.rand(2, 3, network.size, network.size)).shape == (2, len(network.classes))


FAILS = """
import torch
from torch import nn

def misfit():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    net.load_state_dict({"model.0.weight": torch.zeros(4, 3, 3, 3), "model.0.bias": torch.zeros(4)})
    return net

def whole():
    return torch.load("whole.pth", weights_only=True)
"""


def test_a_mistake_in_ones_own_function_is_one_line_with_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_failing_net.py").write_text(FAILS)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)), "whole.pth")
    misfit = r"net.py:misfit failed: RuntimeError in line 7 of my_failing_net.py: Error\(s\) in loading .*Missing key"
    whole = "net.py:whole failed: UnpicklingError in line 11 of my_failing_net.py: Weights only"
    for target, message in (("misfit", misfit), ("whole", whole)):
        with pytest.raises(ValueError, match=message) as caught:
            CallableSource(f"my_failing_net.py:{target}", **HALF).load()
        said = str(caught.value)
        assert not {"\n", "\x1b", "\t"} & {*said}
        assert len(said) < 400
        assert caught.value.__cause__ is not None  # the log has the whole of it


# ---- what one's own is named by --------------------------------------------------------------------------------------

RGB = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 16}
OWN_CLASSES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3 if i == 0 else width, width, 3) for i in range(depth)))

    def forward(self, x):
        return self.layers(x)

    @classmethod
    def from_name(cls, name="small"):
        return cls({"small": 2, "large": 8}[name])

def build(width=4):
    return Net(width)
"""


@pytest.fixture
def own_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_package").mkdir()
    for file in ("own_package/nets.py", "own_file.py"):
        (tmp_path / file).write_text(OWN_CLASSES)
    (tmp_path / "own_package" / "__init__.py").touch()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("own_package", "own_file"))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "width"),
    [
        ("own_package.nets.Net", 4), ("own_package.nets:Net", 4), ("own_file.py:Net", 4), ("own_file.Net", 4),
        ("own_package.nets.Net.from_name", 2), ("own_package.nets:Net.from_name", 2), ("own_file.py:Net.from_name", 2),
        ("own_file.Net.from_name", 2), ("own_package.nets.build", 4),
    ],
)  # fmt: skip
def test_every_way_to_name_a_class_of_one_s_own(target, width, own_classes):
    network = CallableSource(target, **RGB).load()
    assert network.body.layers[0].out_channels == width
    assert network.name == "Net"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("own_package.nets.Nett", "own_package.nets has no function 'Nett'; the nearest names are Net"),
        ("own_package.nets.Net.from_nam", "has no function 'Net.from_nam'; the nearest names are from_name"),
        ("own_package.net.Net", "own_package has no function|cannot import 'own_package.net'"),
        ("no_such_package.Net", "cannot import 'no_such_package'"),
        ("own_package.nets.torch.__version__", "must be a function or a class, not a "),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(target, message, own_classes):
    with pytest.raises(ValueError, match=message) as error:
        CallableSource(target, **RGB).load()
    assert "\n" not in str(error.value)


def test_a_checkpoint_s_hyper_parameters_build_the_network_where_they_fit(own_classes, caplog):
    made = CallableSource("own_package.nets.Net", {"width": 6, "depth": 2}, **RGB).load().body
    wide = {f"model.{name}": one for name, one in made.state_dict().items()}
    kept = {"width": 6, "depth": 2, "lr": 0.1, "betas": (0.9, 0.99)}
    torch.save({"state_dict": wide, "hyper_parameters": kept}, "last.ckpt")
    torch.save({"state_dict": wide}, "bare.ckpt")
    with caplog.at_level("INFO", logger="mindseye"):
        network = CheckpointSource("last.ckpt", "own_package.nets.Net", **RGB).load()
    assert [layer.out_channels for layer in network.body.layers] == [6, 6]
    assert "called with width=6, depth=2, the hyper_parameters of last.ckpt" in caplog.text
    assert torch.equal(network.body.layers[1].weight, wide["model.layers.1.weight"])
    assert CallableSource("own_package.nets.Net", weights="last.ckpt", **RGB).load().body.layers[0].out_channels == 6
    given = CallableSource("own_package.nets.Net", {"width": 6, "depth": 2}, "bare.ckpt", **RGB).load()
    assert torch.equal(given.body.layers[1].weight, network.body.layers[1].weight)
    with pytest.raises(ValueError, match=r"own_package.nets.Net takes width, depth: arguments="):
        CheckpointSource("bare.ckpt", "own_package.nets.Net", **RGB).load()
    with pytest.raises(ValueError, match="does not fit"):  # what is given stands before what is kept
        CheckpointSource("last.ckpt", "own_package.nets.Net", {"width": 4}, **RGB).load()


# ---- what Lightning leaves beside the weights -------------------------------------------------------------------

KEEPING = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, **others):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, others.get("classes", 2), 3))

    def forward(self, x):
        return self.layers(x)

class ByOne(Net):
    def __init__(self, hparams):
        super().__init__(hparams.width, classes=hparams["head"].classes)

class Needs(Net):
    def __init__(self, width, act):
        super().__init__(width)

class Own:
    pass
"""


@pytest.fixture
def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module whose classes are gone again when a checkpoint that holds some of them is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keeping.py").write_text(KEEPING)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("keeping")
    monkeypatch.delitem(sys.modules, "keeping")
    monkeypatch.setitem(sys.modules, "keeping", module)
    return module


def checkpoint(net: nn.Module, **beside: object) -> dict[str, Tensor]:
    state = {f"model.{name}": one for name, one in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, **beside}, "last.ckpt")
    return net.state_dict()


def test_objects_beside_the_weights_are_not_made_and_do_not_stand_in_the_way(keeping, monkeypatch, caplog):
    objects = {
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1), "act": nn.GELU, "own": keeping.Own(),
        "root": Path("a/b"), "args": argparse.Namespace(width=6), "config": OmegaConf.create({"a": [1, {"b": "c"}]}),
    }  # fmt: skip
    state = checkpoint(keeping.Net(6), hyper_parameters={"width": 6, **objects}, callbacks={"own": keeping.Own()})
    monkeypatch.setattr(keeping.Own, "__init__", lambda self: pytest.fail("an object was made"))
    kept = read_hyperparameters(Path("last.ckpt"))
    assert kept.values["root"] == Path("a/b")
    assert kept.values["args"].width == 6
    assert kept.values["config"].a == [1, {"b": "c"}]
    assert set(kept.unread) == {"optimizer", "act", "own"}
    assert kept.unread["optimizer"] == "functools.partial"
    with caplog.at_level("INFO", logger="mindseye"):
        network = CheckpointSource("last.ckpt", "keeping.Net", **RGB).load()
    assert same_weights(network, state)
    assert "keeping.Net is called with width=6" in caplog.text
    with pytest.raises(ValueError, match=r"'act'; act in last.ckpt is a torch.*GELU, which is not read") as error:
        CheckpointSource("last.ckpt", "keeping.Needs", **RGB).load()
    assert "\n" not in str(error.value)


def test_a_constructor_gets_the_hyper_parameters_as_lightning_gives_them(keeping):
    everything = {"width": 6, "classes": 5}
    state = checkpoint(keeping.Net(**everything), hyper_parameters=everything, hparams_name="kwargs")
    assert same_weights(CheckpointSource("last.ckpt", "keeping.Net", **RGB).load(), state)  # **others takes classes
    nested = {"width": 6, "head": OmegaConf.create({"classes": 5})}
    state = checkpoint(keeping.Net(**everything), hyper_parameters=nested, hparams_name="hparams")
    assert same_weights(CheckpointSource("last.ckpt", "keeping.ByOne", **RGB).load(), state)


def test_a_whole_module_is_refused_with_what_to_save(keeping):
    torch.save(keeping.Net(), "whole.pth")
    refused(r"objects besides tensors \(keeping.Net\): save model.state_dict\(\) alone", lambda: CallableSource(
        "keeping.Net", weights="whole.pth", **RGB
    ).load())  # fmt: skip


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("resnet18", True, r"weights must be .DEFAULT. .*, None .* or a file of them, not True"),
        ("demo", False, "not False"),
        ("resnet18", {"conv1.weight": torch.zeros(1)}, "not a dict"),
        ("resnet18", models.ResNet50_Weights.DEFAULT, "is of another network: there are ResNet18_Weights"),
        ("resnet18", "ResNet50_Weights.IMAGENET1K_V1", "is of another network"),
        ("demo", models.ResNet50_Weights.DEFAULT, "not a ResNet50_Weights"),
    ],
)  # fmt: skip
def test_weights_that_are_none(name, weights, said):
    with pytest.raises(ValueError, match=said) as caught:
        load_network(name, weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "weights",
    ["IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1", models.SqueezeNet1_1_Weights.IMAGENET1K_V1],
    ids=str,
)
def test_torchvision_s_weights_by_name_and_by_its_enumeration(weights, monkeypatch):
    """Whichever way they are named, the same entry is asked for."""
    asked = []
    body = models.squeezenet1_1()
    monkeypatch.setattr(torchvision_models, "downloaded", lambda name, load, url: asked.append(url) or body)
    load_network("squeezenet1_1", weights)
    assert asked == [models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url]
