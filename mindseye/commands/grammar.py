"""Hydra's grammar of overrides: what must be quoted, what an override stands for, and which of them name no code."""

import os
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from mindseye.commands.composing import ConfigurationError, composition_error, config_folder, groups
from mindseye.settings import NAMED, plain_settings

MOST_CELLS = 100_000  # of a sweep
# Keys whose values are files or folders, whatever group they stand in: images.root, transfer.demo.weights,
# logger.csv.save_dir, network.target (my/net.py:build), hydra.run.dir.
PATHS = re.compile(
    r"\+{0,2}(?:[\w/@-]+\.)*(?:path|init|weights|root|folder|file|target|(?:sub)?dir|\w+_(?:path|folder|file|root|(?:sub)?dir))"
)
# Of these no other value can be meant by a comma: they are not swept.
ONE_PATH = re.compile(r"\+{0,2}hydra\.(?:run|sweep)\.(?:sub)?dir")


def quoted(word: str, *, sweeps: bool = True) -> str:
    """An override with what Hydra's grammar would read otherwise, or not at all, in quotes.

    A plus in front of what is there already is left out.

    Number-like names of layers: one may be called 6.20, which YAML reads as 6.2. And the paths of files, which may hold
    any character. What a comma parts may be values of a sweep, each a path, unless there is a file or folder of the
    whole name, the key is one of Hydra's own folders, or the command has no sweeps; what looks like choice(…) needs
    quotes of its own.

    >>> quoted("images.root=~/my photos"), quoted("images.root=a,b"), quoted("images.root='a b'")
    ("images.root='~/my photos'", 'images.root=a,b', "images.root='a b'")
    >>> quoted("+experiment=smoke"), quoted("++k=4"), quoted("+objective.darker=4")
    ('experiment=smoke', 'k=4', '+objective.darker=4')
    >>> quoted("network.weights=k=4/a.pth,k=5/a.pth"), quoted("hydra.run.dir=sweep/k=4,C=2-215ce75af8")
    ("network.weights='k=4/a.pth','k=5/a.pth'", "hydra.run.dir='sweep/k=4,C=2-215ce75af8'")
    """
    key, _, path = word.partition("=")
    if key.startswith("+") and _is_there(key.lstrip("+")):  # as it must be written in other programs
        key = key.lstrip("+")
        word = f"{key}={path}"
    settled = re.match(r"['\"\[{]|\w+\(", path) or ("," in path and re.search(r"['\"]|\\,", path))
    if PATHS.fullmatch(key) and not settled:
        there = any(os.path.exists(os.path.expanduser(name)) for name in (path, path.rpartition(":")[0]) if name)
        whole = not sweeps or "," not in path or ONE_PATH.fullmatch(key) or there
        return f"{key}={','.join(map(_quoted_path, [path] if whole else path.split(',')))}"
    match = re.fullmatch(r"(\+{0,2}(?:layer|previous|transfer\.\w+\.layer)=)(.+)", word)
    if not match:
        return word
    names = match[2].split(",")
    return match[1] + ",".join(f"'{name}'" if re.fullmatch(r"[\d._e]+", name) else name for name in names)


def _is_there(key: str) -> bool:
    """Whether it is a group or a plain setting, which are always there."""
    return key in plain_settings() or key in groups() or key in ("hydra/launcher", "hydra/sweeper")


def _quoted_path(path: str) -> str:
    return path if re.fullmatch(r"[\w./\\:+*@?|$%{}-]*", path, re.ASCII) else escaped(path)


def escaped(text: str) -> str:
    """A text as a value in Hydra's grammar, whatever characters it has.

    >>> print(escaped("a b,c='d'"))
    'a b,c=\\'d\\''
    """
    # Backslashes are taken literally but in front of a quote, where each must be doubled.
    doubled = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda match: match[1] * 2, doubled) + "'"


def parsed(words: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them, each alone. Raises ConfigurationError for one that it cannot read."""
    overrides: list[Override] = []
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # which glob(*) asks for options
    for word in words:
        try:
            overrides += parser.parse_overrides([word])
        except Exception as error:  # a number of too many digits, brackets nested too deeply: not only Hydra's own
            lines = str(error).split("\nSee https")[0].split("\n")
            if lines[-1].strip() == "^":  # under the character that is wrong
                place = lines[-1].index("^")
                lines = [f"not readable from {word[place : place + 10]!r} on; what is no plain word goes into quotes"]
            reason = lines[-1] or "not readable"
            raise ConfigurationError(f"{word}: write key=value, or a command first ({reason})") from error
    return overrides


def choices(override: Override) -> list[str]:
    """Every single override that a swept one stands for, at most 1,000 of them; of an interval its ends."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if isinstance(value, RangeSweep):
        if not value.step:
            raise ConfigurationError(f"{override.input_line}: a step of 0 reaches no end")
        assert value.start is not None  # Hydra's own check
        assert value.stop is not None
        if (value.stop - value.start) / value.step > MOST_CELLS:
            raise ConfigurationError(f"{override.input_line}: more than {MOST_CELLS:,} values")
    try:
        values = [f"{key}={value}" for value in islice(override.sweep_string_iterator(), 1000)]
    except Exception as error:  # of a sort of words and numbers, a range among choices: not only Hydra's own
        raise ConfigurationError(f"{override.input_line}: {composition_error(error)}") from error
    if not values:
        raise ConfigurationError(f"{override.input_line}: there is no value in it")
    return values


def is_plain(word: str) -> bool:
    r"""Whether an override does no more than to give settings plain values, and groups the names of their files.

    An allow-list, for words that somebody else has written. What it lets through names no code: no interpolation, since
    resolvers may make anything of it, none of the keys that Hydra instantiates by, no `target` and no `arguments`,
    which networks import and call, no other package, no path of a file of settings, nothing of Hydra's own.

    >>> is_plain("k=10"), is_plain("network=resnet50"), is_plain("canvas._target_=os.system"), is_plain("k=$\\{C\\}")
    (True, True, False, False)
    """
    try:
        [override] = parsed([word])
        value = override.value()
    except Exception:  # what cannot be read is not plain
        return False
    key = override.key_or_group
    names = key.split(".")
    known = names[0] in (*plain_settings(), *groups(), *NAMED) and all(map(_is_plain_name, names))
    if not known or override.package is not None or override.is_delete() or override.is_sweep_override():
        return False
    if key in groups():
        return all(name is None or (type(name) is str and _is_plain_name(name)) for name in _listed(value))
    return _is_plain_value(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_plain_name(name: object) -> bool:
    plain = type(name) is int or (type(name) is str and re.fullmatch(r"[A-Za-z0-9][\w-]*", name, re.ASCII) is not None)
    return plain and name not in ("target", "arguments")


def _is_plain_value(value: object) -> bool:
    """A number, a text without interpolations, a list or mapping of such; not what Hydra makes of a function."""
    if isinstance(value, dict):
        return all(_is_plain_name(key) and _is_plain_value(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain_value, value))
    return value is None or type(value) in (bool, int, float) or (type(value) is str and "${" not in value)
