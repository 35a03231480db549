"""What is wrong in plain settings is said before torch is imported; constructors are asked what they take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mindseye.commands.composing import config_folder
from mindseye.commands.constructors import arguments_of
from mindseye.commands.main import VERBS


def targets(node):
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for key, child in node.items():
            if key != "hydra":  # Hydra makes its own
                yield from targets(child)


CONFIGURED = sorted(
    {
        target
        for file in config_folder().rglob("*.yaml")
        if "hydra" not in file.relative_to(config_folder()).parts
        for target in targets(yaml.safe_load(file.read_text()))
    }
)


@pytest.mark.parametrize("target", CONFIGURED)
def test_every_configured_constructor_says_what_it_takes(target):
    takes = arguments_of(target, "here")
    if target.startswith("mindseye."):
        assert not takes.open_ended
        assert "self" not in takes.hints


OWN_NETWORK = ["network=callable", "network.mean=[0.5]", "network.std=[0.25]"]
SAID_AT_ONCE = [
    ["objective.gian=2"], ["netwrok=demo"], ["k=0"], ["facets.N=many"], ["images.black=0"], ["precision=8"], ["--help"],
    ["k=10,x", "-m"], ["--version"], ["sweep", "status", "nowhere"],
    *([verb, "--help"] for verb in VERBS),
    ["layers", "network=resnet81"], ["cache", "cache.limit_gb=-1"], ["figures", "nowhere"], ["images.root=nowhere"],
    ["-m", "images.root=.,nowhere"], [*OWN_NETWORK, "network.target=nofile.py:build", "layer=conv1"],
    [*OWN_NETWORK, "network.target=mine.build"],
]  # fmt: skip


def test_what_is_wrong_is_said_without_torch(tmp_path):
    """One after the other in one process: the first that imports anything heavy is the one to be named."""
    script = (
        "import json, sys\nfrom mindseye.commands.main import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try:\n        main(arguments)\n    except SystemExit:\n        pass\n"
        "    else:\n        assert {'--help', '--version'} & {*arguments}, arguments\n"
        "    heavy = {'torch', 'pytorch_lightning', 'sklearn', 'matplotlib', 'kornia'} & set(sys.modules)\n"
        "    if heavy:\n        sys.exit(f'{arguments} imported: {heavy}')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(SAID_AT_ONCE)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not list(Path(tmp_path).glob("outputs/*"))
