"""The wheel that users install and the source distribution: whole, typed, and working from any directory."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution, and the wheel that is built from it."""
    place = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(place), str(PROJECT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


def test_the_source_distribution_holds_all_that_is_built_and_tested(built):
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "Makefile", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"} <= names
    assert {"LICENSE", "mkdocs.yml", "scripts/site_hooks.py"} <= names
    assert {"mindseye/py.typed", "mindseye/demo/weights.safetensors"} <= names
    assert {"conf/visualize.yaml", "tests/conftest.py", "docs/method.md", "notebooks/quickstart.py"} <= names


def test_the_wheel_holds_the_configuration_the_weights_and_the_types(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {str(path.relative_to(PROJECT)) for path in (PROJECT / "conf").rglob("*.yaml")}
    assert {f"mindseye/{name}" for name in files} <= names
    plugins = {"hydra_plugins/mindseye_sweeper.py", "hydra_plugins/mindseye_launchers.py"}
    assert {"mindseye/demo/weights.safetensors", "mindseye/py.typed", *plugins} <= names
    page = (PROJECT / "mindseye/reports/gallery/page").iterdir()
    assert {f"mindseye/reports/gallery/page/{path.name}" for path in page} <= names
    assert not [name for name in names if name.startswith(("tests", "conf"))]


@pytest.mark.long
def test_installed_and_run_from_an_empty_directory(wheel, tmp_path):
    """Into an environment of its own that borrows the heavy packages, so that nothing of the checkout is at hand."""
    venv.create(tmp_path / "env")
    python = tmp_path / "env/bin/python"
    borrowed = subprocess.run(
        [sys.executable, "-c", "import torch, pathlib; print(pathlib.Path(torch.__file__).parent.parent)"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(borrowed)  # only packages: the editable checkout is a .pth there, not followed
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [tmp_path / "env/bin/mindseye", "experiment=smoke", "hydra.run.dir=run"],
        cwd=empty, capture_output=True, text=True, check=False, env=alone,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (empty / "run/metrics.json").exists()
    asked = [python, "-c", "import mindseye; print(mindseye.__file__)"]
    where = subprocess.run(asked, cwd=empty, capture_output=True, text=True, check=True, env=alone).stdout
    assert str(tmp_path) in where
