"""Small real things that many tests share: drawn photographs, the packaged demo network, facets found with them."""

import os
import warnings

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch

from mindseye.demo.photographs import write_photographs
from mindseye.facets import FacetTargets, Photographs, discover_facets, load_photographs
from mindseye.networks import Network, demo_network

warnings.filterwarnings("ignore", module="pytorch_lightning")
torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory):
    """The suite, and the commands it starts, never touch the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINDSEYE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photograph_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, "padlock", 24, seed=3)
    return folder


@pytest.fixture(scope="session")
def photographs(photograph_folder) -> Photographs:
    return load_photographs(photograph_folder, size=48)


@pytest.fixture(scope="session")
def network() -> Network:
    return demo_network()


@pytest.fixture(scope="session")
def targets(network, photographs) -> FacetTargets:
    return discover_facets(network, photographs, network.resolve(depth="middle"), facets=3, k=8, N=4)
