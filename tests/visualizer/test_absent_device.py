"""What draws and measures reads nothing from a device that is not there: see absent_device.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason=f"torch {torch.__version__} takes no backend written in Python",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By case: what is wrong with it, or None."""
    script = Path(__file__).with_name("absent_device.py")
    project = Path(__file__).parents[2]
    paths = (str(project), str(project / "tests"), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=240, env=environment,
        cwd=tmp_path_factory.mktemp("absent"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(map(json.loads, ended.stdout.splitlines()))


def test_nothing_is_read_and_nothing_mixed(found):
    wrong = [f"{case}: {fault}" for case, fault in found.items() if fault and not case.startswith("mistake")]
    assert len(found) > 30
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("reads", "DataDependentOutputException"),
        ("looks", "DataDependentOutputException"),
        ("asks", "DynamicOutputShapeException"),
        ("mixes", "FakeTensorDeviceMismatchError"),
        ("copies", "from cpu to absent"),
        ("brings", "from absent to cpu"),
    ],
)
def test_mistakes_are_seen(found, mistake, said):
    assert said in found[f"mistake {mistake}"]
