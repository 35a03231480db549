"""What the layer sees in the photographs."""

from mindseye.facets.discovery import discover_facets
from mindseye.facets.photographs import Photographs, load_photographs
from mindseye.facets.targets import FacetTargets

__all__ = ["FacetTargets", "Photographs", "discover_facets", "load_photographs"]
