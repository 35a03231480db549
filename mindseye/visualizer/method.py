"""How facets are drawn: all that decides a bit of a picture, one value."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, get_args

from pydantic import SkipValidation
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from mindseye.fields import value
from mindseye.settings import Drawing
from mindseye.visualizer.canvas import Canvas, FourierCanvas
from mindseye.visualizer.objective import Objective
from mindseye.visualizer.schedules import Schedules
from mindseye.visualizer.terms import Adaptive, LossFunction
from mindseye.visualizer.transformations import Transformations
from mindseye.words import called

MakeCanvas = Callable[[Tensor, Tensor], Canvas]
MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]


def calibrated_adam(parameters: Iterator[nn.Parameter]) -> Optimizer:
    """The default optimiser of the image, Adam without momentum; its learning rate comes from the schedule.

    RMSprop (Tieleman & Hinton 2012) with Adam's correction of the first steps; docs/performance.md has it beside Adam.
    """
    return Adam(parameters, lr=1.0, betas=(0.0, 0.9))


@value
class Method(Drawing):
    """All that decides a picture, given the network and the targets. The defaults are the calibrated method."""

    objective: Annotated[LossFunction, SkipValidation] = Objective()
    """What is minimised, a `LossFunction`."""
    canvas: Annotated[MakeCanvas, SkipValidation] = FourierCanvas
    """What is trained in place of the pixels: a class or function of the initial images [C, ch, S, S] and the
    photographs [C, N, ch, S, S], both in 0..1, that gives a `Canvas`."""
    schedule: Schedules = Schedules()
    """How rates and strengths change from the first step to the last."""
    transformations: Transformations = Transformations()
    """The ranges of the random views and their noise."""
    optimizer: Annotated[MakeOptimizer, SkipValidation] = calibrated_adam
    """A function of the canvas's parameters that gives a torch.optim.Optimizer, whose learning rate `schedule` sets at
    every step."""
    filters: Annotated[Sequence[Any], SkipValidation] = ()
    """What is done to the pictures after each step, in this order: each a `PeriodicFilter`, another Lightning callback,
    or a function of the images [C, ch, S, S] in 0..1, which runs every 10 steps."""

    def __post_init__(self) -> None:
        _check_objective(self.objective)
        if isinstance(self.canvas, nn.Module):
            kind = type(self.canvas).__name__
            raise ValueError(f"the canvas must be the class {kind}, called with the photographs later, not one {kind}")
        if not callable(self.canvas):
            raise ValueError(f"the canvas must be a class or function of images and photographs, not {self.canvas}")
        if not callable(self.optimizer):
            raise ValueError(f"the optimizer must be a function of parameters, not {self.optimizer}")
        if not isinstance(self.filters, list | tuple):
            raise ValueError(f"filters must be a list, not {called(self.filters)}")
        for part in self.filters:
            if isinstance(part, type):
                raise ValueError(f"a filter must be one of its class, {part.__name__}(), not the class {part.__name__}")
            if not (callable(part) or hasattr(part, "on_train_batch_end")):
                raise ValueError(
                    f"a filter must be one of a subclass of PeriodicFilter, or a function of images, not {called(part)}"
                )


def _check_objective(objective: object) -> None:
    if isinstance(objective, type):
        name = objective.__name__
        raise ValueError(f"the objective must be one of its class, {name}(), not the class {name}")
    call = getattr(objective, "__call__", None)  # noqa: B004 - its parameters are looked at
    try:
        inspect.signature(call).bind(None)  # type: ignore[arg-type]
    except TypeError:
        if call is not None:
            raise ValueError(
                f"the objective, {called(objective)}, must take one value, Seen, and give LossTerms: "
                "__call__(self, seen)"
            ) from None
    except ValueError:
        pass  # without a signature
    wanted = ("gain", "adaptive", "adaptive_distance", "weights", "__call__")
    lacking = [name for name in wanted if not hasattr(objective, name)]
    if lacking:
        raise ValueError(
            f"the objective, {called(objective)}, has no {', '.join(lacking)}: it must be one of a class with what "
            "LossFunction lists, or of a subclass of Objective"
        )
    gain, adaptive = objective.gain, objective.adaptive  # type: ignore[attr-defined]
    if not (isinstance(gain, int | float) and 0 < gain < math.inf):
        raise ValueError(
            f"gain of the objective, {called(objective)}, must be a number above 0 (1 where it knows none), not {gain}"
        )
    if adaptive not in get_args(Adaptive):
        raise ValueError(
            f"adaptive of the objective, {called(objective)}, must be {', '.join(get_args(Adaptive))}, not {adaptive}"
        )
