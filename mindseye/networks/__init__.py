"""What is looked into: frozen networks, the names of their layers, and what a layer answers."""

from mindseye.networks.layers import LayerRow, layer_table, resolve_layer
from mindseye.networks.loading import (
    callable_network,
    checkpoint_network,
    demo_network,
    load_network,
    timm_network,
    torchvision_network,
    warn_of_no_training,
)
from mindseye.networks.network import Network
from mindseye.networks.recording import Tape, record

__all__ = [
    "LayerRow",
    "Network",
    "Tape",
    "callable_network",
    "checkpoint_network",
    "demo_network",
    "layer_table",
    "load_network",
    "record",
    "resolve_layer",
    "timm_network",
    "torchvision_network",
    "warn_of_no_training",
]
