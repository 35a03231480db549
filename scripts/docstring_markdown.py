"""For the documentation site: the docstrings, which are plain text, as Markdown.

Blocks of `>>>` become code, the names of arguments in running text (`weights: None, or a file`) begin items of a list,
no other character means anything but itself, and the fields of a class are listed with the comments behind them.
"""

import re
from collections.abc import Iterator

from griffe import Attribute, Class, Extension, Function, Object

EXAMPLE = re.compile(r"^[ ]*>>> .*(?:\n(?!\n).*)*", re.M)
CODE = re.compile(r"(`[^`]+`)")
COMMENT = re.compile(r"  # (.*)$")


def as_markdown(text: str, arguments: set[str]) -> str:
    """A docstring with fences around its examples and its arguments as a list, their names in bold."""
    parts, end = [], 0
    for example in EXAMPLE.finditer(text):
        parts += [_prose(text[end : example.start()], arguments), f"```pycon\n{example[0]}\n```"]
        end = example.end()
    return "".join([*parts, _prose(text[end:], arguments)])


def _prose(text: str, arguments: set[str]) -> str:
    parts = CODE.split(text)
    for n in range(0, len(parts), 2):
        plain = re.sub(r"([\\*_>$])", r"\\\1", parts[n]).replace("<", "&lt;")  # which no backslash escapes
        parts[n] = re.sub(
            r"(^|\n\s*|[.;:)] )((?:[\w\\]+, )*[\w\\]+): ", lambda match: _named(match, arguments), plain
        )
    return "".join(parts)


def _named(match: re.Match[str], arguments: set[str]) -> str:
    """An argument, or several, as an item of a list, which the text behind it goes on with."""
    names = match[2].replace("\\", "").split(", ")
    return f"{match[1].rstrip()}\n\n- **{match[2]}**: " if set(names) <= arguments else match[0]


class DocstringMarkdown(Extension):
    """Works on every object as soon as it has been read."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Changes its docstring."""
        if obj.docstring is None or not obj.path.startswith("mindseye."):
            return
        rows = list(_fields(obj)) if isinstance(obj, Class) else []
        obj.docstring.value = "\n\n".join(
            filter(None, [as_markdown(obj.docstring.value, _arguments(obj)), "\n".join(rows)])
        )


def _fields(cls: Class) -> Iterator[str]:
    """The fields of a class that have a comment behind them and no docstring, as items of a list."""
    for name, member in cls.members.items():
        if isinstance(member, Attribute) and not member.docstring and not name.startswith("_") and member.lineno:
            line = cls.lines_collection[cls.filepath][member.lineno - 1]
            if comment := COMMENT.search(line):
                yield f"- **{_prose(name, set())}**: {_prose(comment[1], set())}"


def _arguments(obj: Object) -> set[str]:
    if isinstance(obj, Function):
        return {parameter.name for parameter in obj.parameters}
    if isinstance(obj, Class):
        own = {name for name, member in obj.members.items() if isinstance(member, Attribute)}
        made = obj.members.get("__init__")
        return own | ({parameter.name for parameter in made.parameters} if isinstance(made, Function) else set())
    return set()
