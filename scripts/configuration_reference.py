"""Every setting as Markdown, for docs/configuration.md: from the fields of the values, from conf/ and its comments.

Where a part is made by a constructor that is no such value, a canvas or a network, its docstring says what its
arguments are and its annotations what they take.

`python scripts/configuration_reference.py` prints it.
"""

import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from omegaconf import OmegaConf

from mindseye.commands.composing import CONFIG_NAME, SPECIAL_KEYS, compose, config_folder
from mindseye.commands.composing import options as names_of
from mindseye.commands.constructors import arguments_of
from mindseye.fields import annotation_of, described, fields_of, is_value
from mindseye.settings import plain_settings

SETTING_GROUPS = ("experiment", "length", "ablation")  # set keys of others and have none of their own

# The groups in the order of the data, each with what it decides.
GROUPS = {
    "network": "what is looked into",
    "images": "the photographs",
    "facets": "how photographs are weighted and chosen",
    "objective": "the loss",
    "canvas": "what is trained in place of the pixels",
    "transformations": "random views before the network",
    "filters": "what is done to the pictures between steps",
    "schedule": "what falls linearly from the first step to the last",
    "optimizer": "who takes the steps",
    "length": "how many steps",
    "transfer": "who judges the pictures",
    "logger": "trackers",
    "callbacks": "who looks on",
    "trainer": "the device",
    "cache": "what is kept between runs",
    "ablation": "one part of the method taken away or put in another's place",
    "experiment": "whole runs and sweeps",
}
LAUNCHER = "hydra/launcher"
MANY = 4  # options of which one is named rather than the rest
COMMENT = re.compile(r"\s+#\s+(?P<comment>.*)$")
KEY = re.compile(r"^(?P<indent>\s*)(?P<name>[A-Za-z_]\w*):(?:\s|$)")


@dataclass
class Setting:
    """One key with what each option of its group gives it and what is said of it."""

    key: str
    values: dict[str, Any] = field(default_factory=dict)  # by option
    words: dict[str, list[str]] = field(default_factory=dict)  # by option: the comment in conf/, the docstring's words
    takes: str = ""


# ---- what stands in conf/ ---------------------------------------------------------------------------------------


def options(group: str) -> Sequence[str]:
    """The names of a group's options, the default first."""
    default = _defaults().get(group)
    return sorted(names_of(group), key=lambda name: name != default)


@lru_cache
def _defaults() -> Mapping[str, str]:
    """Each group's default option, out of the primary config's defaults list."""
    primary = yaml.safe_load((config_folder() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8"))
    listed = [entry for entry in primary["defaults"] if isinstance(entry, dict)]
    return {name: option for groups in listed for name, option in groups.items()}


@lru_cache
def header(path: Path) -> str:
    """The comment at the top of a file of conf/, its lines kept, `# @package` left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line[1:].strip())
    return "\n".join(lines)


@lru_cache
def comments(path: Path) -> Mapping[str, str]:
    """What a file of conf/ says of each key: the comment behind it, or the lines of comment before it."""
    by_key, before, parents = {}, [], []
    top = True  # the file's own header is none of a key
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            if not (top and not line.startswith(" ")):
                before.append(line.strip()[1:].strip())
            continue
        top = False
        key = KEY.match(line)
        if key:
            indent = len(key["indent"])
            parents = [(depth, name) for depth, name in parents if depth < indent] + [(indent, key["name"])]
            behind = COMMENT.search(line)
            comment = behind["comment"] if behind else " ".join(before)
            if comment:
                by_key[".".join(name for _, name in parents)] = comment
        before = []
    return by_key


def _files(group: str, option: str) -> Iterator[Path]:
    """The option's file and those of its own group that it builds upon, nearest first."""
    path = config_folder() / group / f"{option}.yaml"
    yield path
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for name in settings.get("defaults", []):
        if isinstance(name, str) and not name.startswith(("_self_", "/")) and (path.parent / f"{name}.yaml").exists():
            yield from _files(group, name)


@lru_cache
def composed() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The whole configuration as each option of each group composes it, interpolations as they are written.

    To compose takes a fifth of a second, and what is named wins over all else: so every round names one option of each
    group at once.
    """
    named = {group: options(group) for group in GROUPS if group not in ("transfer", "ablation", "experiment")}
    by_group: dict[str, dict[str, Mapping[str, Any]]] = {group: {} for group in named}
    for n in range(max(map(len, named.values()))):
        chosen = {group: names[n % len(names)] for group, names in named.items()}
        config = compose([f"{group}={name}" for group, name in chosen.items()])
        plain: Any = OmegaConf.to_container(config, resolve=False)
        for group, name in chosen.items():
            by_group[group].setdefault(name, plain)
    return by_group


# ---- what stands in the constructors ----------------------------------------------------------------------------


@lru_cache
def told(target: str) -> Mapping[str, str]:
    """What the docstrings of a constructor, and of what it is derived from, say of each argument.

    They name them in running text: `jitter: largest shift, fraction of the side. mean, std: …`, up to the next such
    name or the end of the paragraph.
    """
    made = pkgutil.resolve_name(target)
    if is_value(made):
        return {name: " ".join((field.description or "").split()) for name, field in fields_of(made).items()}
    names = set(arguments_of(target, target).hints)
    family = [made]
    if inspect.isclass(made):
        family = [base for base in made.__mro__ if base.__module__.startswith("mindseye.")]
    texts = []
    for base in family:
        texts += [base.__doc__ or "", base.__dict__["__init__"].__doc__ or "" if "__init__" in vars(base) else ""]
    by_name: dict[str, str] = {}
    start = re.compile(r"(?:(?<=^)|(?<=[.;:)] ))((?:\w+, )*\w+): ")
    for paragraph in re.split(r"\n\s*\n", "\n\n".join(inspect.cleandoc(text) for text in texts)):
        flat = " ".join(paragraph.split())
        marks = [match for match in start.finditer(flat) if set(match[1].split(", ")) <= names]
        for mark, following in zip(marks, [*marks[1:], None], strict=False):
            text = flat[mark.end() : following.start() if following else len(flat)].strip().rstrip(";").rstrip(".")
            text = re.sub(r"\bNone\b", "null", re.sub(r"\. (?:Wrong values raise|Raises) .*", "", text))
            for name in mark[1].split(", "):
                if not re.fullmatch(r"see `\w+`", text):  # which it is derived from
                    by_name.setdefault(name, text)
    return by_name


# ---- put together -----------------------------------------------------------------------------------------------


def _flat(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of all that can be set; of what has a constructor of its own, what it is as well."""
    for key, value in node.items():
        if key in SPECIAL_KEYS:
            continue
        where = f"{place}.{key}" if place else str(key)
        if not isinstance(value, dict) or not value:
            yield where, value
            continue
        yield from _flat(value, where)


def _targets(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, dotted path) of every constructor in a node."""
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield place, node["_target_"]
    for key, value in node.items():
        yield from _targets(value, f"{place}.{key}" if place else str(key))


def group_settings(group: str) -> Sequence[Setting]:
    """All settings that the options of a group have, in the order in which they stand there."""
    settings: dict[str, Setting] = {}
    for option in options(group):
        node = composed()[group][option][group]
        targets = dict(_targets(node))
        rows = dict(_flat(node))
        if group in SWITCHED:
            rows = {**{name: OFF if value is None else ON for name, value in node.items()}, **rows}
            rows = {path: OFF if path in node and value is None else value for path, value in rows.items()}
        for path, value in sorted(rows.items(), key=lambda row: list(node).index(row[0].partition(".")[0])):
            key = f"{group}.{path}"
            setting = settings.setdefault(key, Setting(key))
            setting.values[option] = value
            if value is ON:
                setting.words[option] = [_first_sentence(targets[path])]
                continue
            if value is OFF:
                continue
            from_code = list(filter(None, [*_of_constructors(path, targets), _of_field(key)]))
            near = (path,) if from_code else (path, path.rpartition(".")[0])
            comment = [comments(file).get(name, "") for file in _files(group, option) for name in near]
            setting.words[option] = _distinct([*from_code, next(filter(None, comment), "")])
            place, name = ("", path) if "." not in path else path.rsplit(".", 1)
            if place in targets:
                kind = kinds(arguments_of(targets[place], key).hints.get(name, Any))
            else:
                kind = _plain(key) if key in plain_settings() else ""
            if setting.takes in kind:  # of several constructors the one that takes most
                setting.takes = kind
    return sorted(settings.values(), key=lambda setting: _order(setting.key, settings))


SWITCHED = ("filters",)  # groups each of whose keys is a thing of its own, or null
ON, OFF = "on", "null"


def _order(key: str, settings: Mapping[str, Setting]) -> tuple[int, int]:
    """Settings of one thing stand together, where the thing first stands."""
    keys = list(settings)
    head = ".".join(key.split(".")[:2])
    first = next(n for n, other in enumerate(keys) if other == head or other.startswith(f"{head}."))
    return first, keys.index(key)


def _of_constructors(path: str, targets: Mapping[str, str]) -> Iterator[str]:
    """What the docstrings say of a key: of lr.start what Schedules says of lr, then what Linear says of start."""
    parts = path.split(".")
    for n, name in enumerate(parts):
        place = ".".join(parts[:n])
        if place in targets:
            yield told(targets[place]).get(name, "")


def _of_field(key: str) -> str:
    field = plain_settings().get(key)
    return "" if field is None else " ".join((field.description or "").split())


def _first_sentence(target: str) -> str:
    text = " ".join(inspect.cleandoc(pkgutil.resolve_name(target).__doc__ or "").partition("\n\n")[0].split())
    return text


def _distinct(texts: Iterable[str]) -> list[str]:
    """The texts, without those most of whose words an earlier one has."""
    kept: list[str] = []
    for text in texts:
        words = _content(text)
        if words and not any(len(words & _content(other)) >= len(words) / 2 for other in kept):
            kept.append(text)
    return kept


def _content(text: str) -> set[str]:
    small = {"the", "of", "a", "an", "and", "or", "as", "in", "to", "it", "is", "its", "with", "for"}
    return set(re.findall(r"[a-z0-9σλρ]+", text.lower())) - small


def kinds(hint: Any) -> str:
    """What an annotation takes, as it is written in YAML."""
    literal = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(literal) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(literal))
    return described(hint)


def _plain(key: str) -> str:
    """The type and range of a setting without a constructor."""
    return kinds(annotation_of(plain_settings()[key]))


def root_settings() -> Sequence[Setting]:
    """The settings that belong to no group."""
    path = config_folder() / f"{CONFIG_NAME}.yaml"
    comment_of = comments(path)
    settings = []
    for key, value in composed()["network"][options("network")[0]].items():
        if key in GROUPS and key not in SETTING_GROUPS:
            continue
        setting = Setting(key, {"": value}, {"": [_of_field(key) or comment_of.get(key, "")]})
        setting.takes = _plain(key) if key in plain_settings() else "a mapping `{name: {_target_: …}}`"
        if key == "steps":
            setting.values = {name: composed()["length"][name][key] for name in options("length")}
            setting.words = {"": ["Of the optimisation; `length` and the objectives' presets bring their number"]}
        settings.append(setting)
    return settings


def launcher_settings() -> Mapping[str, Sequence[Setting]]:
    """Of each launcher what its file here sets. Others of its package can be set too."""
    by_launcher = {}
    for path in sorted((config_folder() / LAUNCHER).glob("*.yaml")):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        node.pop("defaults", None)
        comment_of = comments(path)
        rows = []
        for key, value in _flat(node):
            near = [comment_of[part] for part in (key, key.rpartition(".")[0]) if comment_of.get(part)]
            rows.append(Setting(f"hydra.launcher.{key}", {path.stem: value}, {path.stem: near[:1]}))
        by_launcher[path.stem] = rows
    return by_launcher


# ---- as Markdown ------------------------------------------------------------------------------------------------


def written(value: Any) -> str:
    """A value as it is written on the command line."""
    if value == "???":
        return "must be given"
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(written(item).strip("`") for item in value) + "]`"
    if value == {}:
        return "`{}`"
    if value == "":
        return '`""`'
    return f"`{value}`"


def _among(names: Sequence[str], of: Sequence[str]) -> str:
    if len(names) == len(of):
        return ""
    if len(of) > MANY and len(names) > len(of) / 2:
        others = [name for name in of if name not in names]
        return "all but " + ", ".join(f"*{name}*" for name in others)
    return ", ".join(f"*{name}*" for name in names)


def _values(setting: Setting, of: Sequence[str]) -> str:
    """The default in each option, options with the same one together; `of`: all options of the group."""
    by_value = defaultdict(list)
    for option, value in setting.values.items():
        by_value[written(value)].append(option)
    if ON in setting.values.values():
        return "on in " + ", ".join(f"*{name}*" for name, value in setting.values.items() if value == ON)
    if len(by_value) == 1:
        [(value, names)] = by_value.items()
        where = _among(names, of)
        shown = value if value == "must be given" else f"default {value}"
        return f"{shown} in {where}" if where else shown
    own = [value for value, names in by_value.items() if names == [value.strip("`")]]
    if len(own) > MANY:
        by_value = {
            "its own": [value.strip("`") for value in own],
            **{value: names for value, names in by_value.items() if value not in own},
        }
    return " · ".join(f"{value} in {_among(names, list(setting.values))}" for value, names in by_value.items())


def _escaped(text: str) -> str:
    """Words of a comment or a docstring as Markdown: no mark of it means anything but code."""
    parts = re.split(r"(`[^`]+`)", text)
    for n in range(0, len(parts), 2):
        parts[n] = re.sub(r"([\\*_$>\[\]{}|#])", r"\\\1", parts[n]).replace("<", "&lt;")  # no backslash escapes it
    return re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", "".join(parts))


def _sentence(text: str, setting: Setting) -> str:
    """With a capital letter and a full stop, but what names a value or a symbol as it is."""
    first = re.match(r"[^\s:;,]*", text)[0]
    values = (*re.findall(r"`(\w+)`", setting.takes), "null", "true", "false", "mdist")
    if (re.fullmatch(r"[a-z']{2,}", first) and first not in values) or text.startswith("a "):
        text = text[0].upper() + text[1:]
    text = _escaped(text)
    return text if text.endswith((".", "?", "…", ".)")) else text + "."


def _words(setting: Setting) -> Sequence[str]:
    """What is said of it, each thing once, with the options it is said of where others say otherwise."""
    by_text: dict[str, list[str]] = defaultdict(list)
    for option, texts in setting.words.items():
        for text in texts:
            by_text[text].append(option)
    lines = []
    for text, names in by_text.items():
        elsewhere = len(names) < len(setting.values) and any(set(more) - set(names) for more in by_text.values())
        where = _among(names, list(setting.values)) if elsewhere else ""
        lines.append(f"{where}: {_sentence(text, setting)}" if where else _sentence(text, setting))
    return lines


def _block(setting: Setting, of: Sequence[str], anchor: str = "") -> str:
    """One setting: its key and what it takes; what is said of it; its default."""
    parts = re.split(r"(`[^`]+`)", setting.takes)
    parts[::2] = [part.replace("{", "&#123;").replace("}", "&#125;") for part in parts[::2]]  # no attributes
    takes = "".join(parts)
    kind = f" · {takes}" if takes else ""
    lines = [*_words(setting), _values(setting, of) + "\n{: .values }"]
    body = "\n\n".join(line.replace("\n", "\n    ") for line in lines).replace("\n\n", "\n\n    ")
    return f"`{setting.key}`{{: #{anchor or setting.key} }}{kind}\n:   {body}\n"


def _option_list(group: str) -> str:
    lines = []
    for option in options(group):
        text = header(config_folder() / group / f"{option}.yaml")
        first, *rest = text.split("\n")
        default = " (default)" if _defaults().get(group) == option else ""
        if first.startswith("mindseye "):  # an experiment's command, and what it may say behind it
            command, _, more = first.partition(": ")
            text = "\n".join(filter(None, [more, *rest]))
            text = " ".join(text.split())
            body = f"    `{command}`\n\n    {_escaped(text[:1].upper() + text[1:])}"
        else:
            body = "    " + _escaped(" ".join(text.split()))
        lines.append(f"`{group}={option}`{{: #{group}-{option} }}{default}\n:   {body.lstrip()}\n")
    return "\n".join(lines)


def markdown() -> str:
    """The whole reference, from the second heading down."""
    parts = ["## At the root\n", *(_block(setting, list(setting.values)) for setting in root_settings())]
    for group, title in GROUPS.items():
        parts.append(f"## {group}: {title} {{: #{group} }}\n")
        if group == "transfer":
            parts.append(
                "A network that judges, `transfer=resnet18`, or several, `transfer=[resnet18,timm]`. Each option is "
                "the network of that name, with its settings under `transfer.NAME`, as in `transfer.timm.name=…`, and "
                "one of its own:\n\n"
                "`transfer.NAME.layer`{: #transfer.layer } · a text or null\n:   The layer at which it judges; null is "
                "its late layer.\n\n    default `null`\n    {: .values }\n\n"
                "Options: " + ", ".join(f"`{option}`" for option in options(group)) + ".\n"
            )
            continue
        parts.append(_option_list(group))
        if group not in SETTING_GROUPS:
            settings = group_settings(group)
            if settings:
                parts.append(f"### Settings of {group} {{: #{group}-settings }}\n")
                parts += [_block(setting, options(group)) for setting in settings]
    parts.append("## hydra/launcher: where the cells of a sweep run {: #launcher }\n")
    parts.append(
        "`hydra/launcher=basic` is Hydra's own and the default: one cell after the other, in this process. See "
        "[Clusters](clusters.md).\n"
    )
    for name, settings in launcher_settings().items():
        text = _escaped(" ".join(header(config_folder() / LAUNCHER / f"{name}.yaml").split()))
        parts += [f"### {name} {{: #launcher-{name} }}\n", f"{text}\n"]
        parts += [_block(setting, [name], f"{name}.{setting.key}") for setting in settings]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(markdown())
