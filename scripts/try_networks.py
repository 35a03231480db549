"""Draws a few steps on networks of every kind, small and with random weights, and prints the table of docs/networks.md.

    python scripts/try_networks.py [WORD ...]    # those whose name contains one of the words

Each is really surveyed, drawn and measured on the demo's photographs. Takes about a minute on two cores.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

import mindseye as me
from mindseye.demo.photographs import write_photographs
from mindseye.facets.photographs import Photographs
from mindseye.networks import CheckpointSource, Network, TimmSource, TorchvisionSource
from mindseye.networks.preparing import prepare

PHOTOGRAPHS, FACETS, STEPS = 12, 2, 3
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class Plain(nn.Module):
    """Three convolutions, of any number of channels."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2)
        self.conv3 = nn.Conv2d(32, 32, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,ch,H,W] -> maps [B,32,H',W']."""
        return self.conv3(self.conv2(self.conv1(images).relu()).relu())


def plain(channels: int, mean: float = 0.5, std: float = 0.25) -> Network:
    """`Plain` for 48² images of so many channels, with the same mean and standard deviation in each."""
    return me.load_network(Plain(channels), mean=[mean] * channels, std=[std] * channels, size=48)


def tiny_vit() -> Network:
    """torchvision's vision transformer with random weights: 36 patches and a class token at 48²."""
    body = VisionTransformer(48, patch_size=8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5)
    return Network(body, *IMAGENET, "VisionTransformer", 48)


def tiny_swin() -> Network:
    """torchvision's Swin with random weights: its maps have their channels last."""
    return Network(SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=5), *IMAGENET, "SwinTransformer", 48)


def lightning_checkpoint() -> Network:
    """ResNet-18's random weights as a LightningModule saves them, read back by name."""
    from torchvision import models

    state = models.resnet18(weights=None).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "last.ckpt"
        torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3}, file)
        return CheckpointSource(file, "resnet18", size=64).load()


def exported() -> Network:
    """A program of torch.export, with its modules back and any number of images at once."""
    batch = torch.export.Dim("batch", max=1024)
    program = torch.export.export(Plain().eval(), (torch.rand(2, 3, 48, 48),), dynamic_shapes=({0: batch},))
    return me.load_network(program, mean=[0.5] * 3, std=[0.25] * 3, size=48)


def scripted() -> Network:
    """A TorchScript program. Raises ValueError: it cannot be hooked."""
    return me.load_network(torch.jit.script(Plain().eval()), mean=[0.5] * 3, std=[0.25] * 3, size=48)


@dataclass(frozen=True)
class Case:
    """A network to try at a layer; `settings` is how a user names it."""

    settings: str
    make: Callable[[], Network]
    layer: str
    size: int | None = None  # of the images; None: the network's own


def torchvision(name: str, layer: str, size: int) -> Case:
    """One of torchvision's by name, random weights, images size²."""
    return Case(f"torchvision {name}", lambda: TorchvisionSource(name, None, size=size).load(), layer)


def timm(name: str, layer: str, size: int | None = None, channels: int | None = None) -> Case:
    """One of timm's by name, random weights; size and channels are its own where they are None."""
    normalised = {} if channels is None else {"mean": [0.5] * channels, "std": [0.25] * channels}
    title = f"timm {name}" + (f", channels: {channels}" if channels else "")
    return Case(title, lambda: TimmSource(name, None, size=size, **normalised).load(), layer)


CASES = [
    torchvision("resnet18", "layer4.1", 64),
    torchvision("densenet121", "features.denseblock3", 64),
    torchvision("efficientnet_b0", "features.6", 64),
    torchvision("convnext_tiny", "features.7", 64),
    torchvision("inception_v3", "Mixed_6b", 96),
    torchvision("deeplabv3_resnet50", "backbone.layer3", 64),
    torchvision("deeplabv3_mobilenet_v3_large", "classifier.0", 64),
    torchvision("fcn_resnet50", "backbone.layer3.5.conv1", 64),
    torchvision("lraspp_mobilenet_v3_large", "backbone.12", 64),
    torchvision("fasterrcnn_resnet50_fpn", "backbone.body.layer3", 64),
    torchvision("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone.fpn.layer_blocks.0", 64),
    torchvision("retinanet_resnet50_fpn", "backbone.body.layer4", 64),
    torchvision("ssd300_vgg16", "backbone.features.22", 64),
    torchvision("vit_b_16", "encoder.layers.encoder_layer_5", 64),
    torchvision("swin_t", "features.5", 64),
    torchvision("maxvit_t", "blocks.1", 224),
    timm("test_resnet", "layer3"),
    timm("test_vit", "blocks.3"),
    timm("vit_tiny_patch16_224", "blocks.5", 64),
    timm("vit_small_patch14_reg4_dinov2", "blocks.5", 70),
    timm("deit_tiny_distilled_patch16_224", "blocks.5", 64),
    timm("swin_tiny_patch4_window7_224", "layers.2", 112),
    timm("hiera_tiny_224", "blocks.5"),
    timm("mixer_s32_224", "blocks.3", 64),
    timm("convnextv2_atto", "stages.2", 64),
    timm("resnet26d", "layer3", 64, channels=1),
    timm("resnet26d", "layer3", 64, channels=6),
    timm("vit_tiny_patch16_224", "blocks.5", 64, channels=4),
    Case("callable, channels: 1", lambda: plain(1), "conv3"),
    Case("callable, channels: 4", lambda: plain(4), "conv3"),
    Case("callable, channels: 6", lambda: plain(6), "conv3"),
    Case("callable, images of 0..255: mean 0, std 1/255", lambda: plain(3, 0.0, 1 / 255), "conv3"),
    Case("callable, images of 80 pixels where 48 is its own", lambda: plain(3), "conv3", 80),
    Case("callable, torchvision VisionTransformer", tiny_vit, "encoder.layers.encoder_layer_1"),
    Case("callable, torchvision SwinTransformer", tiny_swin, "features.3"),
    Case("checkpoint of a LightningModule", lightning_checkpoint, "layer3.1.conv1"),
    Case("torch.export program", exported, "conv3"),
    Case("TorchScript", scripted, "conv3"),
]


def photographs_of(folder: Path, channels: int, size: int) -> Photographs:
    """The demo's, where the network takes other than 1 or 3 channels as arrays that repeat them."""
    if channels in (1, 3):
        return me.load_photographs(folder / "png", size, channels)
    place = folder / str(channels)
    if not place.exists():
        place.mkdir()
        colours = me.load_photographs(folder / "png", 64)
        for i in range(len(colours)):
            array = colours.read(i).numpy()
            np.save(place / f"{i}.npy", array[np.arange(channels) % 3])
    return me.load_photographs(place, size, channels)


def attempt(case: Case, folder: Path) -> tuple[str, str, str]:
    """(what happened, layer's maps, facets drawn)."""
    torch.manual_seed(0)
    try:
        network = case.make()
        photographs = photographs_of(folder, network.channels, case.size or network.size)
        prepared = prepare(network, case.layer)
        targets = me.discover_facets(prepared, photographs, case.layer, me.Facets(C=FACETS, k=8, N=4))
        result = me.visualize(prepared, targets, me.Method(steps=STEPS), me.Running(accelerator="cpu"))
    except ValueError as error:
        return f"refused: {error}", "", "0"
    moved = (result.images - targets.initial).flatten(1).abs().amax(dim=1) > 0.01
    D, height, width = targets.maps.shape[1:]
    return ("one program" if prepared.traced else "by hooks"), f"{D} × {height}×{width}", str(int(moved.sum()))


def main() -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    words = sys.argv[1:]
    print("| network | layer | channels × map | what happened | facets drawn |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder) / "png", "padlock", PHOTOGRAPHS, seed=0)
        for case in CASES:
            if words and not any(word in case.settings for word in words):
                continue
            happened, maps, drawn = attempt(case, Path(folder))
            print(f"| {case.settings} | `{case.layer}` | {maps} | {happened} | {drawn} |", flush=True)


if __name__ == "__main__":
    main()
