"""Settings by their names alone, as the values that `fit` and `visualize` take them in."""

from mindseye.fields import fields_of
from mindseye.settings import Running
from mindseye.visualizer.method import Method
from mindseye.visualizer.watching import Watchers


def given(**settings):
    """`given(steps=2, devices=2, report=…)` is {method: Method(steps=2), running: Running(devices=2), …}."""
    left = dict(settings)
    method = Method(**{name: left.pop(name) for name in fields_of(Method) if name in left})
    running = Running(**{name: left.pop(name) for name in fields_of(Running) if name in left})
    told = [name for name in ("report", "announce", "logger", "every") if name in left]
    watchers = Watchers(**{name: left.pop(name) for name in told})
    return {"method": method, "running": running, "watchers": watchers, **left}
