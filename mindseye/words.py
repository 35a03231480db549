"""How errors, names and sizes are said to people, in one line."""

import difflib
import inspect
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from mindseye.signals import Interrupted

LONGEST = 200  # letters that are told of an error; torch names every key that does not fit
# Files of installed packages and of Python: an error in them comes from what they were given, as in this package.
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]|[/\\]lib[/\\]python3|^<")
_PACKAGE = str(Path(__file__).resolve().parent)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # what makes letters bold on a terminal


def on_one_line(text: object) -> str:
    """All white space as single blanks.

    >>> on_one_line(ValueError("no such\\n    file"))
    'no such file'
    """
    return " ".join(_ESCAPES.sub("", str(text)).split())


def one_line(error: BaseException) -> str:
    """What an error says; with its class where it says nothing, and where it is no message for people.

    >>> one_line(ValueError("no such file")), one_line(KeyError("file"))
    ('no such file', "KeyError: 'file'")
    """
    line = on_one_line(error)
    plain = isinstance(error, ValueError | OSError | Interrupted)
    return line if plain and line else f"{type(error).__name__}: {line}".rstrip(": ")


def with_class(error: BaseException, *, place: bool = False) -> str:
    """Class and beginning of an error; with `place` also where: the last line that is of nobody's package.

    >>> with_class(ValueError("no such\\n    file"))
    'ValueError: no such file'
    """
    line = on_one_line(error) or "no reason given"
    frames = traceback.extract_tb(error.__traceback__) if place else []
    own = [frame for frame in frames if not (_INSTALLED.search(frame.filename) or frame.filename.startswith(_PACKAGE))]
    where = f" in line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else ""
    return f"{type(error).__name__}{where}: {line if len(line) <= LONGEST else line[:LONGEST] + ' …'}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def some(names: Sequence[str]) -> str:
    """The first three, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def called(value: object) -> str:
    """A thing in a message: `the function f`, `a Blur`, `an int`."""
    return f"the function {value.__name__}" if inspect.isfunction(value) else with_article(type(value).__name__)


def with_article(name: str) -> str:
    """A class's name with the article that it is spoken with; of capitals, letter by letter.

    >>> with_article("int"), with_article("ndarray"), with_article("SGD"), with_article("UNet"), with_article("Blur")
    ('an int', 'an ndarray', 'an SGD', 'a UNet', 'a Blur')
    """
    an = re.match(r"[aeioAEIO]|nd|U([lp]|n[a-hj-z])|[FHLMNRSX]([A-Z\d]|$)", name)
    return f"{'an' if an else 'a'} {name}"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "cell"), counted(8, "cell")
    ('1 cell', '8 cells')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str], most: int = 4, likeness: float = 0.5) -> list[str]:
    """Those of the known names that may have been meant, the likeliest first, whatever their capitals.

    likeness: how like they must be, in 0..1.

    >>> nearest("galery", ["report", "Gallery"])
    ['Gallery']
    """
    spelled = {other.lower(): other for other in known}
    return [spelled[word] for word in difflib.get_close_matches(name.lower(), spelled, n=most, cutoff=likeness)]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean …?` with the nearest of the known names, dotted ones by their last part too; "" if none is near.

    >>> did_you_mean("objective.gian", ["objective.gain", "k"]), did_you_mean("zz", ["k"])
    ('; did you mean objective.gain?', '')
    """
    place, _, last = name.rpartition(".")
    # What stands beside it is compared without the group's name, by which all of it would be near.
    beside = {other.rpartition(".")[2]: other for other in known if place and other.rpartition(".")[0] == place}
    near = [beside[other] for other in nearest(last, beside, most=2)] if beside else nearest(name, known, most=2)
    # A key given without its group, or under the wrong one: gain, loss.gain -> objective.gain.
    near += [other for other in known if other.split(".")[-1] == last and other not in near]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def printable(name: str) -> str:
    r"""A file's name as it is where it can be printed, else in quotes with escapes.

    >>> printable("a b.png"), printable("a\nb.png")
    ('a b.png', "'a\\nb.png'")
    """
    return name if name.isprintable() else ascii(name)


def readable_size(size: float) -> str:
    """Bytes as people say them: 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
