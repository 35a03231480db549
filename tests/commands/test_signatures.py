"""Signatures read from source are those that Python finds by importing."""

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from mindseye.commands.configuration import config_folder
from mindseye.commands.main import VERBS
from mindseye.commands.signatures import read_signature


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


GENERATED = {"wandb.Settings"}  # pydantic writes the constructor


@pytest.mark.parametrize("target", CONFIGURED)
def test_every_configured_constructor_is_read_as_python_sees_it(target):
    told, thing = read_signature(target), get_object(target)
    if target in GENERATED:
        assert told is None  # so that it is imported and asked
        return
    parameters = inspect.signature(thing).parameters.values()
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    names = [one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    assert told is not None
    assert list(told.hints) == names
    assert told.open_ended == open_ended
    made = thing.__init__ if inspect.isclass(thing) else thing
    try:
        hints = typing.get_type_hints(made)
    except NameError:  # names that are imported for type checkers alone
        return
    plain = {int, float, bool, str, type(None)}
    for name in names:
        hint = hints.get(name, typing.Any)
        if hint in plain or (typing.get_args(hint) and set(typing.get_args(hint)) <= plain):
            assert told.hints[name] == hint, name
        if typing.get_origin(hint) is typing.Literal:
            assert told.hints[name] == hint, name


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import fails, so that whatever is known of it was read."""
    folder = tmp_path / "unimportable"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .deep.parts import Made as Exported\nraise RuntimeError\n")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "parts.py").write_text(
        "from collections.abc import Sequence\nfrom dataclasses import dataclass, field\nfrom typing import Literal\n"
        "from .. import unknown\nKind = Literal['a', 'b']\n"
        "class Base:\n"
        "    def __init__(self, size: 'int | None', kind: Kind = 'a', *, other: unknown.Thing = None): ...\n"
        "class Made(Base):\n    pass\n"
        "@dataclass(frozen=True)\nclass Parent:\n    a: int\n    hidden: int = field(init=False)\n"
        "@dataclass\nclass Child(Parent):\n    b: Sequence[float] = ()\n"
        "def keywords(x, **more): ...\n"
        "@unknown\ndef decorated(x): ...\n"
        "class Meta(metaclass=unknown): ...\n"
        "class Circle(Circle): ...\n"
        "class Foreign(unknown.Base): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "unimportable"


def test_what_source_says(package):
    from collections.abc import Sequence
    from typing import Any, Literal

    exported = read_signature(f"{package}.Exported")
    assert exported.hints == {"size": int | None, "kind": Literal["a", "b"], "other": Any}
    assert not exported.open_ended
    assert read_signature(f"{package}.deep.parts.Child").hints == {"a": int, "b": Sequence[float]}
    assert read_signature(f"{package}.deep.parts.keywords").open_ended


@pytest.mark.parametrize("name", ["decorated", "Meta", "Circle", "Foreign", "Kind", "nothing"])
def test_where_source_does_not_tell(package, name):
    assert read_signature(f"{package}.deep.parts.{name}") is None


@pytest.mark.parametrize("path", ["", "nothing", "no.such.module", "math.cos", "sys.exit", "..a", "a..b"])
def test_paths_without_source(path):
    assert read_signature(path) is None


OWN_NETWORK = ["network=callable", "network.mean=[0.5]", "network.std=[0.25]"]
SAID_AT_ONCE = [
    ["objective.gian=2"], ["objective.gain=much"], ["netwrok=demo"], ["objective.match=sine"], ["--help"],
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
