"""mindseye: see what a layer of a CNN responds to."""

__version__ = "0.1.0"
