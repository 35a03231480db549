"""What a release says of itself is true: versions agree, targets that others call exist, the API is typed and told."""

import importlib
import inspect
import re
import subprocess
import sys
import typing
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import yaml

import mindseye as me
from mindseye.fields import fields_of, is_value

PROJECT = Path(__file__).parent.parent


def test_version_and_paper_in_the_citation():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation["version"] == me.__version__
    paper = citation["preferred-citation"]
    assert paper["title"] == "The Mind's Eye: Visualizing Class-Agnostic Features of CNNs"
    assert paper["authors"] == [{"family-names": "Stergiou", "given-names": "Alexandros"}]
    assert paper["year"] == 2021


def test_the_changelog_is_kept():
    text = (PROJECT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", text, re.M)
    assert versions[0][0] == me.__version__
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_hooks_and_ci_call_targets_that_there_are():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M))
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    jobs = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())["jobs"]
    called = [hook["entry"] for hook in hooks]
    called += [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert len(called) == 5
    for command in called:
        make, target = command.split()[:2]
        assert make == "make"
        assert target in targets
    assert {command.split()[1] for command in called} == {"style", "types", "test", "test-long", "docs"}


@pytest.mark.parametrize("name", me.__all__)
def test_what_is_public_is_told_and_typed(name):
    member = getattr(me, name)
    assert inspect.getdoc(member)
    made = member.__init__ if inspect.isclass(member) else member
    hints = typing.get_type_hints(made)
    assert set(inspect.signature(made).parameters) - {"self"} <= set(hints)


REFERENCE = {
    path: getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    for path in re.findall(r"^::: (mindseye\.\S+)$", (PROJECT / "docs" / "api.md").read_text(), re.M)
}


@pytest.mark.parametrize("path", REFERENCE)
def test_every_argument_is_told(path):
    """In the docstring, in backticks or as `name: …`, by the comment behind a field, or by the docstring under it."""
    member = REFERENCE[path]
    if is_value(member):
        assert all(field.description for field in fields_of(member).values())
        assert all(f"\n{name}" in member.__doc__ for name in fields_of(member))
        return
    made = member.__init__ if inspect.isclass(member) else member
    fields = re.findall(r"^    (\w+): .*  # \S", inspect.getsource(member), re.M) if is_dataclass(member) else []
    for name in set(inspect.signature(made).parameters) - {"self", "args", "kwargs", *fields}:
        assert re.search(rf"`{name}`|(^|[.;:] )(\w+, )*{name}(, \w+)*: ", inspect.getdoc(member), re.M), name


def classes(annotation):
    inner = [kind for part in typing.get_args(annotation) for kind in classes(part)]
    return [*inner, annotation] if inspect.isclass(annotation) else inner


def test_what_is_given_back_is_in_the_reference():
    functions = [inspect.unwrap(member) for member in REFERENCE.values() if inspect.isfunction(member)]
    given = {kind for function in functions for kind in classes(typing.get_type_hints(function)["return"])}
    held = {inner for kind in filter(is_dataclass, given) for hint in typing.get_type_hints(kind).values()
            for inner in classes(hint)}  # fmt: skip
    own = {kind for kind in given | held if kind.__module__.startswith("mindseye.")}
    assert me.Photographs in own
    assert me.Visualization.__annotations__["fit"] in own
    assert own <= set(REFERENCE.values())


USER = """
import torch
from torch import Tensor

import mindseye as me

def contrast(images: Tensor, activations: Tensor, targets: me.FacetTargets) -> Tensor:
    return images.flatten(1).std(dim=1)

network = me.load_network(torch.nn.Conv2d(1, 8, 3), mean=[0.5], std=[0.25])
targets = me.discover_facets(network, me.load_photographs("folder", size=64), "", me.Facets(C=3, k=4))
result = me.visualize(network, targets, me.Method(objective=me.Objective(gain=1)), metrics={"contrast": contrast})
reveal_type(result)
reveal_type(targets.maps)
me.visualize(network, targets, me.Method(steps="many"))
"""


@pytest.mark.long
def test_who_imports_it_is_told_of_wrong_types(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "mindseye.results.visualization.Visualization"' in done.stdout
    assert 'Revealed type is "torch._tensor.Tensor"' in done.stdout
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, done.stdout
    assert 'Argument "steps" to "Method" has incompatible type "str"; expected "int"' in errors[0]
