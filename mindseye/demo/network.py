"""The demo's classifier: a small residual network that names the kind and facet of a demo photograph.

Its modules are named as torchvision names a ResNet's (conv1, bn1, layer1 … layer4, avgpool, fc), so layers are
addressed the same way: "layer3.0.conv1", "layer4.0".
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from mindseye.demo.photographs import KINDS

# The network takes (picture - MEAN) / STD per channel, pictures in [0,1]: the same numbers as torchvision's networks.
MEAN: tuple[float, float, float] = (0.485, 0.456, 0.406)
STD: tuple[float, float, float] = (0.229, 0.224, 0.225)
# One class per facet, "kind/facet". Naming the facet, and not the kind alone, makes the late layers tell facets apart.
CLASSES: tuple[str, ...] = tuple(f"{kind}/{facet}" for kind, facets in KINDS.items() for facet in facets)

# The trained weights that come with the package.
WEIGHTS = Path(__file__).with_name("weights.safetensors")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions round a shortcut: [B,inputs,H,W] -> [B,outputs,H/stride,W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Feature maps [B,inputs,H,W] -> [B,outputs,H/stride,W/stride], values >= 0."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        inner = self.relu(self.bn1(self.conv1(maps)))
        return self.relu(self.bn2(self.conv2(inner)) + shortcut)


class DemoNetwork(nn.Module):
    """A ResNet with one block per stage: [B,3,H,W] normalised, H and W >= 32 -> logits [B,len(CLASSES)].

    At 96×96 the maps are 48×48 after layer1, then 24×24, 12×12 and 6×6 after layer4, with `widths` channels.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 160), classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(BasicBlock(widths[0], widths[0], 1))
        self.layer2 = nn.Sequential(BasicBlock(widths[0], widths[1], 2))
        self.layer3 = nn.Sequential(BasicBlock(widths[1], widths[2], 2))
        self.layer4 = nn.Sequential(BasicBlock(widths[2], widths[3], 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalised pictures [B,3,H,W] -> logits [B,classes] in the order of CLASSES."""
        maps = self.relu(self.bn1(self.conv1(pictures)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))


def demo_network(weights: str | Path | None = "packaged") -> nn.Module:
    """The demo's network in evaluation mode.

    weights: "packaged" for the trained ones that come with mindseye, the path of a safetensors file, or None for
    untrained ones drawn from torch's current random state.
    """
    network = DemoNetwork()
    if weights is not None:
        stored = load_file(WEIGHTS if weights == "packaged" else weights)
        # Stored in half precision to keep the package small; computing stays in single precision.
        network.load_state_dict({name: value.float() if value.is_floating_point() else value
                                 for name, value in stored.items()})
    return network.eval()
