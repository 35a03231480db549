"""Lightning's summary of the module, where everything else of a run is told."""

import logging
from typing import Annotated

import pytorch_lightning as pl
from pydantic import Field
from pytorch_lightning.utilities.model_summary import summarize

from mindseye.fields import MOST, check

Depth = Annotated[int, Field(ge=-1, le=MOST)]
log = logging.getLogger(__name__)


class Summary(pl.Callback):
    """Lightning's table of the module's parts and their parameters, into the log of the run.

    max_depth: how deep parts within parts are listed; -1 is all, 0 the sums alone.
    """

    def __init__(self, max_depth: Depth = 1) -> None:
        check("max_depth", max_depth, Depth)
        self.max_depth = max_depth

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One entry of the log."""
        log.info("summary of the module:\n%s", summarize(pl_module, max_depth=self.max_depth))
