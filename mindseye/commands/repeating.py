"""`mindseye --from RUN_FOLDER`: a run again, from what its own folder says of it, and what is not as it was then.

A run folder may come from somebody else. It is read as JSON and plain YAML. What is taken from it are overrides that
give settings of conf/ plain values, see `is_plain`; anything else must be given again.
"""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mindseye.commands.composing import ConfigurationError
from mindseye.commands.grammar import is_plain
from mindseye.files import read_plain
from mindseye.results.measures import flat
from mindseye.results.run_status import STATUS, read_status
from mindseye.words import with_class

FLAG = "--from"
ELSEWHERE = ("cache", "logger")  # groups that say where files are written beside the run folder, and who is told
MOST_CONFIG_BYTES = 1 << 20  # of config.yaml
LONGEST = 3  # differing settings that are named


@dataclass(frozen=True)
class EarlierRun:
    """What a run folder says of how it was made."""

    folder: Path
    overrides: tuple[str, ...]
    config: Mapping[str, Any]  # config.yaml, flat: {"objective.gain": 2.5}
    provenance: Mapping[str, Any]  # of its metrics.json

    def overrides_beside(self, arguments: Sequence[str]) -> list[str]:
        """Its own overrides but for those of settings, or of groups, that `arguments` set. Raises ConfigurationError.

        The folder may be somebody else's. What may name code must be among `arguments`. Where files are written to and
        who is told of the run (ELSEWHERE) is left out, with a line: it has no part in what comes out.
        """
        given = [_key(word) for word in arguments if not word.startswith("-")]
        kept = [word for word in self.overrides if not any(_lies_in(_key(word), key) for key in given)]
        left_out = [word for word in kept if any(_lies_in(_key(word), group) for group in ELSEWHERE)]
        kept = [word for word in kept if word not in left_out]
        # What a constructor that the folder names would be called with is as little its own to say.
        called = [place for word in self.overrides if (place := _key(word).partition("._target_")[0]) != _key(word)]
        unsaid = [word for word in kept if not is_plain(word) or any(_lies_in(_key(word), place) for place in called)]
        if unsaid:
            again = shlex.join(["mindseye", FLAG, str(self.folder), *unsaid])
            untold = f"{', '.join(unsaid)} may name code, which is not taken from a folder"
            raise ConfigurationError(
                _printable(f"{FLAG} {self.folder}: {untold}; if you trust that, say so by giving it again: {again}")
            )
        if left_out:
            why = "where files go and who is told of a run is yours to say, by giving it again"
            line = f"not taken from {self.folder}: {', '.join(left_out)}; {why}"
            print(f"mindseye: {_printable(line)}", file=sys.stderr)
        return kept


def _lies_in(key: str, place: str) -> bool:
    return f"{key}.".startswith(f"{place}.")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def repeated_folder(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder that --from names, None without it, and the other arguments. Raises ConfigurationError."""
    rest = list(arguments)
    for place, word in enumerate(rest):
        if word == FLAG:
            if place + 1 == len(rest) or rest[place + 1].startswith("-"):
                raise ConfigurationError(f"{FLAG} needs the folder of a run: mindseye {FLAG} outputs/DATE/TIME")
            return Path(rest[place + 1]).expanduser(), rest[:place] + rest[place + 2 :]
        if word.startswith(f"{FLAG}="):
            return Path(word.partition("=")[2]).expanduser(), rest[:place] + rest[place + 1 :]
    return None, rest


def read_earlier(folder: Path) -> EarlierRun:
    """What the folder of a completed run says. Raises ConfigurationError, in one line, where it says too little."""
    try:
        metrics = json.loads(read_plain(folder / "metrics.json", folder))
        provenance = metrics["provenance"]
        written = read_plain(folder / "config.yaml", folder, MOST_CONFIG_BYTES)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(written, yaml.SafeLoader)):
            raise ValueError("config.yaml has aliases, which no run writes: a few lines of them are without end")
        config = yaml.safe_load(written)
        if not isinstance(provenance, dict) or not isinstance(config, dict):
            raise ValueError("metrics.json or config.yaml is not what a run writes")
    except Exception as error:  # what damaged JSON and YAML make their parsers raise
        reason = with_class(error)
        raise ConfigurationError(f"{FLAG} {folder}: no run that can be repeated lies there ({reason})") from error
    status = read_status(folder)
    if status.status != "completed":
        raise ConfigurationError(f"{FLAG} {folder}: its {STATUS} does not say how it was started")
    for word in status.overrides:  # none is a flag of the command, or one of Hydra's own settings
        if not re.match(r"\+{0,2}[A-Za-z]", word) or "=" not in word or _key(word).startswith("hydra"):
            raise ConfigurationError(f"{FLAG} {folder}: its {STATUS} holds {word!r}, which is no setting of a run")
    return EarlierRun(folder, status.overrides, flat(config), provenance)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def tell_differences(earlier: EarlierRun, folder: Path) -> None:
    """One line on standard error where the run in `folder` was not made as the earlier one: other bytes may come of it.

    Settings that were given anew are not among them.
    """
    now = read_earlier(folder)
    changes = differences(earlier.provenance, now.provenance)
    asked = set(now.overrides) - set(earlier.overrides)
    if not asked:
        config = differing(earlier.config, now.config)
        if config:
            more = f" and {len(config) - LONGEST} more" if len(config) > LONGEST else ""
            changes.append(f"settings that nobody gave: {', '.join(config[:LONGEST])}{more}")
    if changes:
        print(f"mindseye: {_printable(f'not as in {earlier.folder}: ' + '; '.join(changes))}", file=sys.stderr)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two flat configurations whose values differ, each as `key before → now`; without ELSEWHERE."""
    keys = [key for key in {**before, **now} if not any(_lies_in(key, group) for group in ELSEWHERE)]
    return [
        f"{key} {before.get(key, 'unset')} → {now.get(key, 'unset')}"
        for key in keys
        if before.get(key, "unset") != now.get(key, "unset")
    ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may make other bytes, of two provenances as metrics.json has them."""
    old, new = flat(before), flat(now)
    changes = [
        f"{key.partition('.')[2]} {old.get(key)} → {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if key.startswith("versions.") and old.get(key) != new.get(key)
    ]
    if old.get("git_commit") != new.get("git_commit"):
        changes.append(f"commit {str(old.get('git_commit'))[:10]} → {str(new.get('git_commit'))[:10]}")
    for key, name in (("network.sha256", "the network's weights"), ("photographs.sha256", "the photographs")):
        if old.get(key) not in (None, new.get(key)):
            changes.append(f"{name} are others")
    for key in ("device.type", "device.name", "device.threads"):
        if old.get(key) != new.get(key):
            changes.append(f"{key} {old.get(key)} → {new.get(key)}")
    return changes
