"""Where a result came from is said when it is drawn already: nothing that is missing on a machine may cost it."""

import importlib.metadata
import subprocess

import pytest

import mindseye
from mindseye.networks.preparing import prepare
from mindseye.results.visualization import provenance
from mindseye.settings import Running
from mindseye.visualizer.method import Method


def not_there(*arguments, **settings):
    raise importlib.metadata.PackageNotFoundError


def no_program(*arguments, **settings):
    raise FileNotFoundError("git")


def too_slow(*arguments, **settings):
    raise subprocess.TimeoutExpired("git", 10)


def fails(*arguments, **settings):
    raise subprocess.CalledProcessError(128, "git")


MISSING = {
    "the package under its name": (importlib.metadata, "version", not_there, "versions"),
    "git": (subprocess, "run", no_program, "git_commit"),
    "an answer of git's": (subprocess, "run", too_slow, "git_commit"),
    "a commit": (subprocess, "run", fails, "git_commit"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_none_and_the_version_is_that_of_the_code_that_ran(what, network, targets, monkeypatch):
    module, name, instead, key = MISSING[what]
    monkeypatch.setattr(module, name, instead)
    noted = provenance(prepare(network, targets.layer), targets, Method(), Running())
    assert noted["versions"]["mindseye"] == mindseye.__version__
    if key == "versions":
        assert noted["versions"]["torch"] is None
    else:
        assert noted[key] is None
