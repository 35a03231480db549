"""A real Slurm and a real Ray on this machine, each in namespaces of its own."""

import importlib.util
import sys
import tempfile
from collections.abc import Iterator

import pytest

from cluster.nodes import HERE, Node, need


def a_slurm(*nodes: str) -> Iterator[Node]:
    """So many nodes, one if nothing is said, each with two GPUs that are none, under Slurm."""
    need("slurmctld", "slurmd", "munged", "sbatch")
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("not installed: submitit (pip install 'mindseye[slurm]')")
    # Not pytest's own folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        node = Node([str(HERE / "slurm.sh"), folder, *nodes], {"SLURM_CONF": f"{folder}/slurm.conf"})
        yield node
        node.stop()


@pytest.fixture(scope="module")
def slurm() -> Iterator[Node]:
    """One node."""
    yield from a_slurm()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Node]:
    """Two, for jobs that take both."""
    yield from a_slurm("2")


@pytest.fixture(scope="module")
def ray() -> Iterator[Node]:
    """A Ray head with two GPUs that are none, started in a folder of its own as a cluster is."""
    need()
    if importlib.util.find_spec("ray") is None:
        pytest.skip("not installed: ray (pip install 'mindseye[ray]')")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        node = Node([str(HERE / "ray.sh"), folder, sys.executable], {"RAY_AUTH_MODE": "disabled"})
        yield node
        node.stop()
