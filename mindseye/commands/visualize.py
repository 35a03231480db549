"""`mindseye`: one run, or a sweep of them, by Hydra's grammar: what is asked is checked, then handed to Hydra."""

import argparse
import os
import re
import sys
from collections.abc import Sequence

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mindseye.commands import verbosity
from mindseye.commands.checking import check_one_run, check_overrides, searched
from mindseye.commands.composing import CONFIG_NAME, ConfigurationError, compose, composition_error, config_folder
from mindseye.commands.constructors import compose_known
from mindseye.commands.grammar import choices, parsed, quoted
from mindseye.commands.job import repeated, run
from mindseye.commands.launchers import anchored, check_launcher
from mindseye.commands.repeating import read_earlier, repeated_folder
from mindseye.settings import plain_settings


def visualize(arguments: Sequence[str]) -> None:
    """Check every override, then hand over to Hydra, which calls `run` for each job."""
    folder, arguments = repeated_folder(arguments)
    many = any(re.fullmatch(r"-\w*m\w*|--mul\w*|\+*hydra\.mode=MULTIRUN", word) for word in arguments)
    arguments = [anchored(quoted(word, sweeps=many)) for word in arguments]
    earlier = None
    if folder is not None:
        earlier = read_earlier(folder)
        arguments = [*earlier.overrides_beside(arguments), *arguments]
    parser = get_args_parser()
    parser.prog, parser.usage = "mindseye", "mindseye [options] [KEY=VALUE …]; mindseye --help says more"
    asked = parser.parse_intermixed_args(arguments)
    if earlier is not None and not asked.multirun:
        asked.overrides.append("hydra.mode=RUN")  # a cell of an experiment is one run
        arguments.append("hydra.mode=RUN")
    check_flags(asked)
    # Hydra itself takes options in front of the settings or behind them, not among them.
    arguments = [*(word for word in arguments if word not in asked.overrides), *asked.overrides]
    shows_only = asked.help or asked.hydra_help or asked.info or asked.cfg or asked.shell_completion
    where = searched(asked.config_dir)
    if not shows_only:
        many = many or sweeps(where, asked.overrides)
        if not many:
            check_one_run(asked.overrides)
        check_overrides([*where, *asked.overrides])
        check_launcher([*where, *asked.overrides], sweeps=many)
    elif asked.info or asked.cfg:
        check_one_run(asked.overrides, "--cfg and --info show one")
        composed = compose_known([*where, *asked.overrides])
        if asked.cfg == "job" and not (asked.resolve or asked.package or asked.multirun):
            print(commented(composed), end="")
            return
    token = repeated.set(earlier)
    try:
        hand_over(arguments)
    finally:
        repeated.reset(token)


def sweeps(where: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a file, an experiment's say, makes a sweep of it."""
    named = [word for word in words if word.lstrip("+").partition("=")[0] in ("experiment", "ablation", "hydra.mode")]
    # of several values, each of which makes one of it or none
    first = [choices(override)[0] for override in parsed(named)]
    return bool(named) and compose([*where, *first], with_hydra=True).hydra.mode == RunMode.MULTIRUN


def commented(config: DictConfig) -> str:
    """The configuration as YAML, with what each plain setting is behind it, as its field says it.

    >>> from omegaconf import OmegaConf
    >>> print(commented(OmegaConf.create({"k": 20, "cache": {"folder": "x", "limit_gb": 1}})).splitlines()[-1])
      limit_gb: 1  # of 10⁹ bytes; what was used last stays. 0: no cache
    """
    lines, group, fields = [], "", plain_settings()
    for line in OmegaConf.to_yaml(config).splitlines():
        indent = len(line) - len(line.lstrip())
        name = line.strip().partition(":")[0].strip("'")
        group = name if indent == 0 else group
        field = fields.get({0: name, 2: f"{group}.{name}"}.get(indent, ""))
        text = "" if field is None else " ".join((field.description or "").split()).rstrip(".")
        lines.append(f"{line}  # {text[:1].lower()}{text[1:]}" if text else line)
    return "\n".join(lines) + "\n"


def check_flags(asked: argparse.Namespace) -> None:
    """Refuse flags of Hydra's that mean nothing here, or too much."""
    if asked.experimental_rerun:
        raise ConfigurationError(
            "--experimental-rerun reads a pickle, which may run anything: mindseye --from RUN_FOLDER repeats a run"
        )
    if asked.config_name or asked.config_path:
        raise ConfigurationError(
            "--config-name, --config-path: there is one configuration; --config-dir=FOLDER adds files of your own to "
            "its groups, FOLDER/experiment/mine.yaml say, for experiment=mine"
        )


def hand_over(arguments: Sequence[str]) -> None:
    """Let Hydra run the job or the sweep of jobs, without looking at the overrides first.

    Raises ConfigurationError, in one line, for what it cannot compose.
    """
    sys.argv = ["mindseye", *arguments]
    told = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print, often as a traceback
    try:
        with verbosity.unfailing_output():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=CONFIG_NAME)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(composition_error(error)) from error
    finally:
        if told is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = told
