"""The configuration's presets for Python: what `objective=published` brings on the command line, as values."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mindseye.commands.checking import check as check_configuration
from mindseye.commands.checking import check_one_run
from mindseye.commands.composing import ConfigurationError, options
from mindseye.commands.constructors import check_constructors, compose_known
from mindseye.commands.grammar import quoted
from mindseye.commands.parts import make_method
from mindseye.settings import Facets
from mindseye.visualizer.method import Method
from mindseye.words import did_you_mean


class Preset(NamedTuple):
    """How facets are found, and how they are drawn."""

    facets: Facets
    method: Method


def preset(name: str = "calibrated", settings: Sequence[str] = ()) -> Preset:
    """A named method and the facets that belong to it, as the command has them.

    name: of an objective (calibrated, published, released) or an ablation (no_tv). settings: as on the command line,
    ["C=10", "k=50", "objective.gain=2"]; of the photographs, the network and where it runs nothing is taken from them.

    Raises ValueError, in one line.

    >>> preset("published", ["C=10"]).facets.weighting, preset("published").method.steps
    ('published', 200)
    """
    known = {"objective": options("objective"), "ablation": options("ablation")}
    group = next((group for group, names in known.items() if name in names), None)
    if group is None:
        names = [name for named in known.values() for name in named]
        meant = did_you_mean(str(name), names)
        raise ValueError(f"there is no preset {name!r}{meant}; there are {', '.join(dict.fromkeys(names))}")
    if name == "deep_inversion":
        raise ValueError(
            "the preset deep_inversion holds the network it draws with: give the objective itself, "
            "RunningStatistics(network) of mindseye.visualizer.running_statistics"
        )
    if isinstance(settings, str | Mapping) or not all(isinstance(word, str) for word in settings):
        raise ConfigurationError(f"settings must be a list of texts, ['C=10', 'k=50'], not {settings!r}")
    check_one_run(settings, "a preset is one method")
    run = check_configuration(compose_known([f"{group}={name}", *(quoted(word, sweeps=False) for word in settings)]))
    check_constructors(run.parts)
    return Preset(run.facets, make_method(run))
