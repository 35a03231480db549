"""Which of Lightning's callbacks can look on while facets are drawn, by the names of their classes and of those above.

Nothing is imported: what cannot run here is known before Lightning is.
"""

from collections.abc import Iterable, Mapping

# Those that tell loggers and do nothing else.
TELL_LOGGERS = ("LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor")
_ENDS = "would end the fit before its last step: steps=N says how many there are"
_FROZEN = "changes the network, which is frozen: give the weights of one that was changed before"
_IN_PARTS = "has nothing to divide, since all facets are one step: facets_per_batch=N computes N at once"
_AVERAGES = "would average the pictures over steps: a learning rate that falls lets them settle"
# Those that cannot run here, each with why not and what does it.
CANNOT: Mapping[str, str] = {
    "EarlyStopping": _ENDS,
    "Timer": f"{_ENDS}, and metrics.json how long they took",
    "Checkpoint": "has no place here: a fit keeps its own state, every checkpoint=SECONDS, and goes on from it",
    "WeightAveraging": _AVERAGES,
    "StochasticWeightAveraging": _AVERAGES,
    "ProgressBar": "has no place here: the command draws a bar of its own (-q: none), in Python Watchers(report=…) is "
    "told of each tenth step",
    "LearningRateFinder": "has no loss on data to go by: the schedule's lr says the learning rate, and can be swept",
    "BatchSizeFinder": _IN_PARTS,
    "GradientAccumulationScheduler": _IN_PARTS,
    "BaseFinetuning": _FROZEN,
    "ModelPruning": _FROZEN,
    "BasePredictionWriter": "has nothing to write, since nothing is predicted: the run folder has the pictures",
    "SpikeDetection": "has no place here: a facet that runs away is stopped alone, and named",
    "ModelSummary": "prints where nobody reads it: the callback model_summary writes the same into run.log",
}

# Lightning's own below these.
_BELOW = {
    "ModelCheckpoint": "Checkpoint", "OnExceptionCheckpoint": "Checkpoint", "RichProgressBar": "ProgressBar",
    "TQDMProgressBar": "ProgressBar", "EMAWeightAveraging": "WeightAveraging", "BackboneFinetuning": "BaseFinetuning",
    "RichModelSummary": "ModelSummary",
}  # fmt: skip


def why_not(kinds: Iterable[str], *, told: bool) -> str | None:
    """Why a callback cannot look on, after its name in a sentence; None where it can.

    kinds: the names of its class and of those above it. told: whether there is a logger.

    >>> why_not(["EarlyStopping", "Callback"], told=True)
    'would end the fit before its last step: steps=N says how many there are'
    >>> why_not(["DeviceStatsMonitor", "Callback"], told=False)
    'tells trackers alone, and there is none: add one, a CSV file say'
    """
    kinds = set(kinds)
    for name, why in CANNOT.items():
        if name in kinds:
            return why
    if not told and kinds & {*TELL_LOGGERS}:
        return "tells trackers alone, and there is none: add one, a CSV file say"
    return None


def why_not_a_filter(kinds: Iterable[str]) -> str | None:
    """As `why_not`, for one of the filters, which change pictures."""
    kinds = set(kinds)
    if kinds & {*TELL_LOGGERS}:
        return "changes no picture: it is one of the callbacks, in Python Watchers(callbacks=[…])"
    return why_not(kinds, told=True)


def of_lightning(name: str) -> tuple[str, ...]:
    """The names of one of Lightning's own classes that cannot run here and of the class above it, by the first of them
    or as files of settings spell it; empty for any other.

    >>> of_lightning("RichProgressBar"), of_lightning("early_stopping"), of_lightning("lr_monitor")
    (('RichProgressBar', 'ProgressBar'), ('EarlyStopping',), ())
    """
    spelled = {known.lower(): (known,) for known in CANNOT} | {low.lower(): (low, high) for low, high in _BELOW.items()}
    return spelled.get(name.replace("_", "").lower(), ())
