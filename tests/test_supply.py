"""What the package leans on: every dependency used and declared, its lowest version named, and no network unasked."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import lru_cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
CODE = [*(PROJECT / "mindseye").rglob("*.py"), *(PROJECT / "hydra_plugins").rglob("*.py")]
TEXT = (PROJECT / "pyproject.toml").read_text()
DECLARED = tomllib.loads(TEXT)["project"]
# Packages whose modules have another name.
MODULES = {
    "pillow": "PIL", "scikit-learn": "sklearn", "scikit-image": "skimage", "hydra-core": "hydra", "pyyaml": "yaml",
    "pytorch-lightning": "pytorch_lightning", "tensorboardx": "tensorboardX", "opentsne": "openTSNE",
    "hydra-joblib-launcher": "hydra_plugins.hydra_joblib_launcher",
    "hydra-submitit-launcher": "hydra_plugins.hydra_submitit_launcher",
    "hydra-ray-launcher": "hydra_plugins.hydra_ray_launcher",
}  # fmt: skip


def parts(requirement):
    """(name, lower bound) of a requirement such as hydra-core>=1.3.2,<1.4."""
    name, bound = re.fullmatch(r"([\w.-]+)>=([\w.]+)(?:,.*)?", requirement).groups()
    return name.lower(), bound


RUNTIME = dict(parts(dependency) for dependency in DECLARED["dependencies"])
EXTRAS = {
    parts(requirement)[0]
    for name in ("timm", "tsne", "wandb", "tensorboard", "video", "slurm", "ray")
    for requirement in DECLARED["optional-dependencies"][name]
}


@lru_cache
def imported():
    """Every module of somebody else's that is imported, with a file that does."""
    licences = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                # hydra_plugins is one folder of several packages
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                top = name.split(".")[0]
                if top != "mindseye" and top not in sys.stdlib_module_names and not name.startswith(
                    ("hydra_plugins.mindseye", "__future__")
                ):
                    licences.setdefault(name, path)
    return licences


def module_of(package):
    return MODULES.get(package, package.replace("-", "_"))


@pytest.mark.parametrize("package", sorted(RUNTIME))
def test_a_dependency_is_imported_or_says_why_it_is_there(package):
    used = any(f"{name}.".startswith(f"{module_of(package)}.") for name in imported())
    [line] = [line for line in TEXT.splitlines() if re.match(rf'\s*"{re.escape(package)}>=', line) and "[" not in line]
    assert used or "#" in line


def test_every_import_is_of_something_declared():
    known = tuple(f"{module_of(package)}." for package in {*RUNTIME, *EXTRAS})
    undeclared = {name: str(path) for name, path in imported().items() if not f"{name}.".startswith(known)}
    assert not undeclared


def test_the_lowest_versions_are_the_lower_bounds():
    """`make test-lowest` installs them and runs tests with them."""
    lines = [line for line in (PROJECT / "tests/lowest.txt").read_text().splitlines() if not line.startswith("#")]
    lowest = dict(line.lower().split("==") for line in lines)
    assert set(lowest) == set(RUNTIME)
    for package, bound in RUNTIME.items():
        assert re.sub(r"(\.0)+$", "", lowest[package]) == re.sub(r"(\.0)+$", "", bound), package


# Put in front of every Python process: whoever asks for an address or a connection is refused, and written down. An
# audit hook sees what C code of Python's own socket module does too, and nothing can take it off.
HOOK = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1] if len(arguments) > 1 else None
        if isinstance(address, (str, bytes)) or address is None or address[0] in ("127.0.0.1", "::1"):
            return  # of this machine
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"):
        return
    with open(os.environ["ASKED"], "a") as file:
        file.write(f"{event} {arguments[:2]}\\n")
    raise ConnectionRefusedError(f"{event}: no network in this test")

sys.addaudithook(refuse)
"""


def without_network(place, *words):
    (place / "sitecustomize.py").write_text(HOOK)
    asked = place / "asked"
    path = os.pathsep.join([str(place), str(PROJECT)])
    environment = {**os.environ, "PYTHONPATH": path, "ASKED": str(asked), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return done, asked.read_text().splitlines() if asked.exists() else []


def test_the_hook_sees_who_asks(tmp_path):
    done, asked = without_network(tmp_path, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)")
    assert done.returncode != 0
    assert asked


def test_no_network_unless_it_is_asked_for(tmp_path):
    done, asked = without_network(
        tmp_path, "-m", "mindseye.commands.main", "experiment=smoke", "transfer=demo", "logger=csv", "hydra.run.dir=run"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/metrics.json").is_file()
    assert asked == []
