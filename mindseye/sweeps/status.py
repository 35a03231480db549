"""How a sweep is doing, from its files alone: also while it runs, on this host or on others."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mindseye.results.run_status import RunStatus, State, read_status
from mindseye.sweeps.manifest import Cell, Manifest, as_written

DONE = ("completed", "failed")  # what no start of the sweep takes up again unless it is asked to


@dataclass(frozen=True)
class SweepStatus:
    """Every cell with its status, in the manifest's order."""

    folder: Path
    cells: tuple[tuple[Cell, RunStatus], ...]

    def count(self, state: State) -> int:
        """How many cells are in this state."""
        return sum(status.status == state for _, status in self.cells)

    def counts(self) -> dict[str, int]:
        """Every state with the number of its cells."""
        return {state: self.count(state) for state in get_args(State)}

    def of(self, state: State) -> list[tuple[Cell, RunStatus]]:
        """The cells in this state."""
        return [(cell, status) for cell, status in self.cells if status.status == state]

    def unfinished(self) -> list[Cell]:
        """The cells that are waiting or to be continued."""
        return [cell for cell, status in self.cells if status.status in ("waiting", "to be continued")]

    def seconds_left(self, now: float | None = None) -> float | None:
        """A guess: what the cells that are not done will still take with as many at once as now (at least one).

        The median of the completed cells' times stands for the others'; None before one is completed, 0 at the end.
        """
        now = time.time() if now is None else now
        running = self.of("running")
        waiting = len(self.unfinished())
        if not running and not waiting:
            return 0.0
        took = [status.seconds for _, status in self.of("completed")]
        if not took:
            return None
        usual = statistics.median(took)
        begun = [usual - (now - (status.started or now)) for _, status in running]
        at_once = max(1, len(running))
        return max(0.0, sum(max(0.0, left) for left in begun) + usual * waiting) / at_once


def read_sweep(folder: Path) -> SweepStatus:
    """Read it. Raises ValueError, in one line, where the folder holds no sweep."""
    folder = Path(folder).expanduser()
    manifest = Manifest.read(folder)
    if not manifest.cells:
        raise ValueError(f"{folder} holds no sweep: there is no manifest.json, which `mindseye -m …` writes")
    return SweepStatus(folder, tuple((cell, read_status(folder / cell.folder)) for cell in manifest.cells.values()))


def varying_overrides(cells: Sequence[Cell]) -> dict[str, str]:
    """What tells each cell from the others, by its id: the overrides that not all of them have."""
    common = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    return {
        cell.id: as_written(
            " ".join(word for word in cell.overrides if word not in common) or " ".join(cell.overrides)
        )
        for cell in cells
    }
