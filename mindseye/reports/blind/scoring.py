"""Files of answers to a blind test as accuracies with intervals, per preset."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import binomtest

from mindseye.files import read_plain
from mindseye.reports.ablation import LEVEL
from mindseye.reports.blind.drawing import FORMAT, KEY

MOST_BYTES = 8 << 20  # of a file of answers, or of a key
CHANCE = 0.5
CAUTION = (
    f"Intervals are exact binomial ones of {LEVEL:.0%}, for answers that are independent: of few people or facets, or "
    "where many answered the same questions, they are too narrow."
)


@dataclass(frozen=True)
class Accuracy:
    """How often people found the photograph that belongs to what a preset shows of a facet."""

    preset: str
    right: int
    answers: int
    people: int  # sittings that answered any of it
    accuracy: float
    low: float  # of the exact binomial interval at LEVEL (Clopper & Pearson 1934)
    high: float


def score(folder: Path, answers: Sequence[Path]) -> list[Accuracy]:
    """Hold files of answers against the keys in the folder, the best preset first.

    Every answer counts as one independent draw: where a few people give many answers each, or see few facets, the
    interval is too narrow. Raises ValueError, in one line, for a file that is no answers, of a test whose key is not
    in the folder, or of a sitting that another file is of too; OSError as reading has it.
    """
    counted: dict[str, list[tuple[str, bool]]] = {}
    sittings: dict[str, Path] = {}
    for path in answers:
        test, sitting, sides = _answers(path)
        if sitting in sittings:
            raise ValueError(f"{sittings[sitting]} and {path} are of one sitting: name the later of them alone")
        sittings[sitting] = path
        key = _key(folder, test, path)
        unknown = sorted(set(sides) - set(key))
        if unknown:
            raise ValueError(f"{path} answers a question {ascii(unknown[0])[:60]} that its test does not have")
        for name, side in sides.items():
            preset, right = key[name]
            counted.setdefault(preset, []).append((sitting, side == right))
    if not counted:
        raise ValueError("there are no answers in these files")
    accuracies = []
    for preset, given in counted.items():
        people = len({sitting for sitting, _ in given})
        accuracies.append(_accuracy(preset, sum(correct for _, correct in given), len(given), people))
    return sorted(accuracies, key=lambda accuracy: -accuracy.accuracy)


def _accuracy(preset: str, right: int, answers: int, people: int) -> Accuracy:
    interval = binomtest(right, answers, CHANCE).proportion_ci(LEVEL, method="exact")
    return Accuracy(preset, right, answers, people, right / answers, float(interval.low), float(interval.high))


def _answers(path: Path) -> tuple[str, str, dict[str, str]]:
    """The test, the sitting and the side per question of a file that anybody may have written."""
    try:
        stored = json.loads(read_plain(path, path.parent, MOST_BYTES))
        test, sitting, given = stored["test"], stored["sitting"], stored["answers"]
        plain = re.fullmatch(r"[0-9a-f]{12}", test) and isinstance(sitting, str) and isinstance(given, dict)
        if stored["format"] != FORMAT or not plain or not set(given.values()) <= {"a", "b"}:
            raise ValueError("not as the page saves them")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} holds no answers of a blind test ({type(error).__name__})") from error
    return test, sitting, given


def _key(folder: Path, test: str, answers: Path) -> dict[str, tuple[str, str]]:
    """Question -> (preset, the right side)."""
    path = folder / KEY.format(test)
    try:
        key = json.loads(read_plain(path, folder, MOST_BYTES))
        return {name: (str(question["preset"]), str(question["right"])) for name, question in key["questions"].items()}
    except FileNotFoundError as error:
        raise ValueError(f"{answers} is of test {test}, whose key {path.name} is not in {folder}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from error


def sentences(accuracies: Sequence[Accuracy]) -> list[str]:
    """What the intervals say against chance, a line per preset."""
    return [
        f"{accuracy.preset}: people found the photograph in {accuracy.accuracy:.2f} "
        f"[{accuracy.low:.2f}, {accuracy.high:.2f}] of the "
        f"questions ({accuracy.right} of {accuracy.answers}, {accuracy.people} sitting{'s' * (accuracy.people != 1)}), "
        f"{_against_chance(accuracy)}."
        for accuracy in accuracies
    ]


def _against_chance(accuracy: Accuracy) -> str:
    if accuracy.low > CHANCE:
        return "more than by chance (0.5)"
    if accuracy.high < CHANCE:
        return "less than by chance (0.5)"
    return "where chance (0.5) is not ruled out"


def as_json(accuracies: Sequence[Accuracy]) -> str:
    """Everything, for programs."""
    presets = [asdict(accuracy) for accuracy in accuracies]
    return json.dumps({"presets": presets, "sentences": [*sentences(accuracies), CAUTION]}, indent=1)


def as_csv(accuracies: Sequence[Accuracy]) -> str:
    """A line per preset, in full digits."""
    text = io.StringIO()
    rows: list[Mapping[str, object]] = [asdict(accuracy) for accuracy in accuracies]
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
