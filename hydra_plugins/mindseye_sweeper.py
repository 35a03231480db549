"""The sweeper of `mindseye -m`: Hydra takes plugins from here alone. What it does is in mindseye.commands.sweeping."""

from collections.abc import Mapping, Sequence
from typing import Literal

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn


class ResumingSweeper(BasicSweeper):
    """Hydra's grid, run cell by cell until every cell is done, and only what is not done yet.

    cells: `asked`, by the overrides; `known`, those of the manifest in the sweep's folder. retry_failed: run failed
    cells again too. retry_changed: and completed ones whose weights, code or photographs are no longer what they were
    drawn from. trackers: overrides of the group `logger` that stand in place of the cells' own.
    max_batch_size, params: Hydra's own.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: Mapping[str, str] | None = None,
        cells: Literal["asked", "known"] = "asked",
        retry_failed: bool = False,
        retry_changed: bool = False,
        trackers: Sequence[str] = (),
    ) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ValueError(f"hydra.sweeper.max_batch_size={max_batch_size}: 1 or more is right, null for all at once")
        super().__init__(max_batch_size, None if params is None else dict(params))
        self.cells = cells
        self.retry_failed = retry_failed
        self.retry_changed = retry_changed
        self.trackers = list(trackers)

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Run what is left of the sweep. A cell that fails does not stop the others and raises nothing here."""
        from mindseye.commands.sweeping import Resuming, run_sweep

        resuming = Resuming(
            known_cells=self.cells == "known",
            retry_failed=self.retry_failed,
            retry_changed=self.retry_changed,
            at_once=self.max_batch_size,
            trackers=self.trackers,
        )
        words = [*self._parse_config(), *arguments]
        return run_sweep(self.launcher, self.config, words, self.hydra_context.config_loader, resuming)
