"""Lightning's notes to its own users."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIGHTNING = ("pytorch_lightning", "lightning_fabric")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Its notes on hardware, loaders and Slurm are for its own users; ours get a progress bar and a table."""
    levels = {name: logging.getLogger(name).level for name in LIGHTNING}
    for name in LIGHTNING:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for name in LIGHTNING:
                warnings.filterwarnings("ignore", module=name)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
