"""`mindseye --from RUN_FOLDER`: a run again, from what its own folder says of it, and what is not as it was then.

A run folder may come from somebody else. It is read as JSON and plain YAML. What is taken from it are overrides of
settings; where they name code to be imported, other than this package's own, that must be given again.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mindseye.commands.configuration import MISSING, ConfigurationError, compose, config_folder
from mindseye.results.run_status import STATUS, read_status
from mindseye.sweeps.summary import flat

FLAG = "--from"
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

        What names code must be among `arguments`, since the folder may be somebody else's.
        """
        given = [_key(word) for word in arguments if not word.startswith("-")]
        kept = [
            word for word in self.overrides if not any(f"{_key(word)}.".startswith(f"{key}.") for key in given)
        ]
        if unsaid := foreign_code(kept):
            raise ConfigurationError(
                f"{FLAG} {self.folder}: it ran code that its folder names, {', '.join(unsaid)}; if you trust that, "
                f"say so by giving it again: mindseye {FLAG} {self.folder} {' '.join(unsaid)}"
            )
        return kept


def foreign_code(overrides: Sequence[str]) -> list[str]:
    """What a configuration would import beside the constructors that conf/ names, as overrides: `network.target=…`."""
    own = {
        value
        for file in config_folder().rglob("*.yaml")
        for _, value in _code(yaml.safe_load(file.read_bytes()))
    }
    composed = OmegaConf.to_container(compose(overrides), resolve=False)
    return [f"{place}={value}" for place, value in _code(composed) if value not in own]


def _code(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every setting that names what is to be imported, with its value: constructors, and a network's `target`."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        where = f"{place}.{key}" if place else str(key)
        if key in ("_target_", "_args_", "target") and value not in (None, MISSING):
            yield where, str(value)
        else:
            yield from _code(value, where)


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
        metrics = json.loads((folder / "metrics.json").read_bytes())
        provenance = metrics["provenance"]
        config = yaml.safe_load((folder / "config.yaml").read_bytes())
        if not isinstance(provenance, dict) or not isinstance(config, dict):
            raise ValueError("metrics.json or config.yaml is not what a run writes")
    except Exception as error:  # what damaged JSON and YAML make their parsers raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
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
    said = differences(earlier.provenance, now.provenance)
    asked = set(now.overrides) - set(earlier.overrides)
    if not asked:
        config = differing(earlier.config, now.config)
        if config:
            more = f" and {len(config) - LONGEST} more" if len(config) > LONGEST else ""
            said.append(f"settings that nobody gave: {', '.join(config[:LONGEST])}{more}")
    if said:
        print(f"mindseye: not as in {earlier.folder}: {'; '.join(said)}", file=sys.stderr)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two flat configurations whose values differ, each as `key before → now`; folders of the run left out."""
    keys = [key for key in {**before, **now} if not key.endswith("save_dir")]
    return [
        f"{key} {before.get(key, 'unset')} → {now.get(key, 'unset')}"
        for key in keys
        if before.get(key, "unset") != now.get(key, "unset")
    ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may make other bytes, of two provenances as metrics.json has them."""
    old, new = flat(before), flat(now)
    found = [
        f"{key.partition('.')[2]} {old.get(key)} → {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if key.startswith("versions.") and old.get(key) != new.get(key)
    ]
    if old.get("git_commit") != new.get("git_commit"):
        found.append(f"commit {str(old.get('git_commit'))[:10]} → {str(new.get('git_commit'))[:10]}")
    for key, name in (("network.sha256", "the network's weights"), ("photographs.sha256", "the photographs")):
        if old.get(key) not in (None, new.get(key)):
            found.append(f"{name} are others")
    for key in ("device.type", "device.name", "device.threads"):
        if old.get(key) != new.get(key):
            found.append(f"{key} {old.get(key)} → {new.get(key)}")
    return found

