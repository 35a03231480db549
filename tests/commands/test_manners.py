"""What the command says and does not say: help on a screen, quiet and verbose, bars and colours on terminals alone."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from rich.console import Console

from mindseye.commands.composing import config_folder
from mindseye.commands.main import VERBS, main
from mindseye.commands.progress import JobProgress
from mindseye.commands.verbosity import take_verbosity


def mindseye(*arguments, cwd, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **more}
    return warm.python("-m", "mindseye.commands.main", *arguments, cwd=cwd, env=environment, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["visualize", "--help"], ["k=3", "--help"], ["help"]])
def test_help_is_one_screen(arguments, capsys):
    main(arguments)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert 10 < len(lines) <= 40
    assert max(map(len, lines)) <= 80
    for command in ("mindseye -m ", "mindseye layers", "mindseye sweep status", "mindseye gallery", "--hydra-help"):
        assert command in printed
    assert all(verb in printed for verb in VERBS if verb != "visualize")
    assert "130" in printed


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["galery", "outputs"], "did you mean gallery?"), (["layer", "network=demo"], "did you mean layers?"),
     (["Sweep", "status"], "did you mean sweep?"), (["qqqq"], "mindseye --help lists them"),
     (["-q", "figure", "run"], "did you mean figures?")],
)  # fmt: skip
def test_a_mistyped_command_has_a_nearest(words, meant, capsys, monkeypatch):
    monkeypatch.setenv("MINDSEYE_VERBOSITY", "normal")  # put back afterwards
    with pytest.raises(SystemExit) as end:
        main(words)
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert line.startswith("mindseye: ")
    assert meant in line


def test_an_option_that_is_none_shows_the_command_s_own_usage(capsys):
    with pytest.raises(SystemExit) as end:
        main(["-x"])
    usage, wrong = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert usage.startswith("usage: mindseye [options]")
    assert wrong == "mindseye: error: unrecognized arguments: -x"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "visualize"])
def test_every_other_command_s_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert re.search(rf"examples?: mindseye {verb}", " ".join(capsys.readouterr().out.split()))


def test_hydra_s_help_and_settings_are_still_there(tmp_path):
    assert "--multirun" in mindseye("--hydra-help", cwd=tmp_path).stdout
    assert "\nobjective:\n" in mindseye("--cfg", "job", "k=3", cwd=tmp_path).stdout
    assert "complete -o nospace" in mindseye("-sc", "install=bash", cwd=tmp_path).stdout


COMPLETE = """
eval "$(mindseye -sc install=bash)"
for COMP_LINE in "mindseye objective=" "mindseye objective.g"; do
    COMP_POINT=${#COMP_LINE} COMP_CWORD=1
    hydra_bash_completion mindseye
    echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes_groups_and_settings_by_the_line_of_the_documentation(tmp_path):
    assert 'eval "$(mindseye -sc install=bash)"' in (Path(__file__).parents[2] / "docs/command-line.md").read_text()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    options, settings = done.stdout.splitlines()
    found = [f"objective={path.stem}" for path in sorted((config_folder() / "objective").glob("*.yaml"))]
    assert options.split() == found, done.stderr
    assert settings.split() == ["objective.gain="]


def test_what_was_said_of_an_earlier_command_is_not_said_of_the_next(monkeypatch, tmp_path):
    """Or the tests after one of -q would see nothing."""
    monkeypatch.setenv("MINDSEYE_VERBOSITY", "")
    take_verbosity(["-q"])
    assert "layer4.0" in mindseye("layers", "network=demo", cwd=tmp_path).stdout


def test_verbosity_is_taken_out_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MINDSEYE_VERBOSITY", "")
    assert take_verbosity(["k=3", "-q", "C=2"]) == ["k=3", "C=2"]
    assert os.environ["MINDSEYE_VERBOSITY"] == "quiet"
    assert take_verbosity(["-q", "--verbose", "-m"]) == ["-m"]
    assert os.environ["MINDSEYE_VERBOSITY"] == "verbose"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("manners")


def test_quiet_says_the_run_folder_alone(place):
    done = mindseye("-q", "experiment=smoke", "hydra.run.dir=quiet", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{place / 'quiet'}\n"
    assert done.stderr == ""
    assert (place / "quiet" / "metrics.json").is_file()


def test_a_quiet_sweep_says_its_folder_alone(place):
    done = mindseye("experiment=smoke", "-m", "k=4,8", "steps=1", "--quiet", "hydra.sweep.dir=sweep", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{place / 'sweep'}\n"
    assert done.stderr == ""


def test_what_fails_is_said_all_the_same(place):
    done = mindseye("-q", "experiment=smoke", "k=1000", "hydra.run.dir=failed", cwd=place)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("mindseye: k must be 1 to 160 (the channels of layer4.0), not 1000")


def test_verbose_is_the_project_s_log_on_standard_error_and_no_other_run(place):
    done = mindseye("-v", "experiment=smoke", "hydra.run.dir=verbose", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "INFO mindseye.commands.progress: step 4/4" in done.stderr
    assert "DEBUG mindseye.networks.preparing: demo up to layer4.0 is one program" in done.stderr
    named = re.findall(r"^\d\d:\d\d:\d\d (?:DEBUG|INFO) (\S+):", done.stderr, re.M)
    assert named
    assert all(name.startswith("mindseye") for name in named)
    assert "facets.png" in done.stdout
    plain = mindseye("experiment=smoke", "hydra.run.dir=plain", cwd=place)
    assert plain.returncode == 0
    assert plain.stderr == ""
    assert "\x1b" not in plain.stdout
    config, images = ((Path(place) / name for name in ("verbose", "plain")) for _ in range(2))
    assert len({(folder / "config.yaml").read_bytes() for folder in config}) == 1
    assert len({(folder / "images.safetensors").read_bytes() for folder in images}) == 1


def test_colours_that_are_forced_make_no_terminal_of_a_file():
    """FORCE_COLOR, which CI services set, has colours in a file; a bar there would be a line for every step."""
    file = io.StringIO()
    with JobProgress(Console(file=file, force_terminal=True), photographs=4, pictures=2, steps=3) as progress:
        progress.reading(2, 4)
    assert file.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("no_colour", [False, True])
def test_bars_on_a_terminal_and_no_colour_where_none_is_wanted(no_colour, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Terminal()
    with JobProgress(Console(file=file, width=80), photographs=4, pictures=2, steps=3) as progress:
        progress.reading(2, 4)
    assert "reading 4 photographs" in file.getvalue()
    coloured = re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])[0-9;]*m", file.getvalue())
    assert (coloured is None) == no_colour
