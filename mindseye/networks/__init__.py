"""What is looked into: frozen networks, the names of their layers, and what a layer answers."""

from mindseye.networks.layers import LayerRow, layer_table, resolve_layer
from mindseye.networks.loading import demo_network, load_network, warn_of_no_training
from mindseye.networks.network import Network
from mindseye.networks.recording import Tape, record
from mindseye.networks.sources.own import CallableSource, CheckpointSource, ModuleSource
from mindseye.networks.sources.source import Source
from mindseye.networks.sources.timm_models import TimmSource
from mindseye.networks.sources.torchvision_models import TorchvisionSource

__all__ = [
    "CallableSource",
    "CheckpointSource",
    "LayerRow",
    "ModuleSource",
    "Network",
    "Source",
    "Tape",
    "TimmSource",
    "TorchvisionSource",
    "demo_network",
    "layer_table",
    "load_network",
    "record",
    "resolve_layer",
    "warn_of_no_training",
]
