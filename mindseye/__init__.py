"""mindseye: see what a layer of a CNN responds to.

>>> import mindseye as me
>>> network = me.load_network("demo")
>>> network.layers["late"]
'layer4.0'
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mindseye.commands.presets import preset
    from mindseye.facets.discovery import discover_facets
    from mindseye.facets.photographs import Photographs, load_photographs
    from mindseye.facets.targets import FacetTargets
    from mindseye.networks import Network, layer_table, load_network
    from mindseye.results.judges import transfer_reference
    from mindseye.results.run_folder import read_run
    from mindseye.results.visualization import Visualization, visualize
    from mindseye.settings import Facets, Running
    from mindseye.visualizer.method import Method
    from mindseye.visualizer.objective import Objective
    from mindseye.visualizer.schedules import Linear, Schedules
    from mindseye.visualizer.transformations import Transformations
    from mindseye.visualizer.watching import Watchers

# Where each public name lives; nothing heavy is imported before it is asked for.
_HOMES = {
    "FacetTargets": "mindseye.facets.targets",
    "Facets": "mindseye.settings",
    "Linear": "mindseye.visualizer.schedules",
    "Method": "mindseye.visualizer.method",
    "Network": "mindseye.networks",
    "Objective": "mindseye.visualizer.objective",
    "Photographs": "mindseye.facets.photographs",
    "Running": "mindseye.settings",
    "Schedules": "mindseye.visualizer.schedules",
    "Transformations": "mindseye.visualizer.transformations",
    "Visualization": "mindseye.results.visualization",
    "Watchers": "mindseye.visualizer.watching",
    "discover_facets": "mindseye.facets.discovery",
    "layer_table": "mindseye.networks",
    "load_network": "mindseye.networks",
    "load_photographs": "mindseye.facets.photographs",
    "preset": "mindseye.commands.presets",
    "read_run": "mindseye.results.run_folder",
    "transfer_reference": "mindseye.results.judges",
    "visualize": "mindseye.results.visualization",
}

__all__ = [
    "FacetTargets",
    "Facets",
    "Linear",
    "Method",
    "Network",
    "Objective",
    "Photographs",
    "Running",
    "Schedules",
    "Transformations",
    "Visualization",
    "Watchers",
    "discover_facets",
    "layer_table",
    "load_network",
    "load_photographs",
    "preset",
    "read_run",
    "transfer_reference",
    "visualize",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"mindseye has no {name!r}; it has {', '.join(__all__)}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
