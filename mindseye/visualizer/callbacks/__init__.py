"""A hook each; the maths is in the plain functions beside this folder."""

from mindseye.visualizer.callbacks.blur import Blur
from mindseye.visualizer.callbacks.checkpointing import Checkpointing
from mindseye.visualizer.callbacks.compiling import Compiling
from mindseye.visualizer.callbacks.gradient_mask import GradientMask
from mindseye.visualizer.callbacks.periodic import FunctionFilter, PeriodicFilter
from mindseye.visualizer.callbacks.released import Brighten, RoundToLevels
from mindseye.visualizer.callbacks.schedule import Schedule
from mindseye.visualizer.callbacks.snapshots import History, Snapshots
from mindseye.visualizer.callbacks.stopping import Stopping
from mindseye.visualizer.callbacks.summary import Summary
from mindseye.visualizer.callbacks.tv_denoise import TVDenoise

__all__ = [
    "Blur", "Brighten", "Checkpointing", "Compiling", "FunctionFilter", "GradientMask", "History",
    "PeriodicFilter", "RoundToLevels", "Schedule", "Snapshots", "Stopping", "Summary", "TVDenoise",
]  # fmt: skip
