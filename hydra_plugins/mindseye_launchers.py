"""The launchers of `mindseye -m` for Slurm and Ray, over Hydra's own; Hydra takes plugins from here alone.

Hydra's own raise where one job was killed, with which the results of all others are lost, and on a Slurm without
accounting they wait for ever. These come back with what became of every job.
"""

import logging
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import open_dict

log = logging.getLogger(__name__)

ASK_S = 10.0  # squeue is asked at most so often, as administrators want it
GRACE_S = 15.0  # a shared file system may show what a job wrote last only so late


def lost(overrides: Sequence[str], reason: str) -> JobReturn:
    """What a job returns that came to its end without returning anything."""
    returned = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    returned.return_value = ChildProcessError(reason)
    return returned


with suppress(ImportError):  # without the extra `slurm` there is no such launcher
    from hydra_plugins.hydra_submitit_launcher import config as submitit_config
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        """An array of Slurm jobs, one a cell, and a wait until each is done, however often it was requeued."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit a job per cell and wait; a job that left the queue without a result comes back as failed."""
            import submitit

            settings = dict(self.params)
            executor = submitit.AutoExecutor(
                settings.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=settings.pop("max_num_timeout")
            )
            common = submitit_config.BaseQueueConf.__dataclass_fields__
            executor.update_parameters(
                **{name if name in common else f"slurm_{name}": value for name, value in settings.items()}
            )
            state = Singleton.get_state()
            calls = [
                (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
                for number, overrides in enumerate(job_overrides, start=initial_job_idx)
            ]
            jobs = executor.map_array(self, *zip(*calls, strict=True))
            log.info("%d Slurm jobs, the first is %s", len(jobs), jobs[0].job_id)
            queue = _Queue()
            return [_wait(job, overrides, queue) for job, overrides in zip(jobs, job_overrides, strict=True)]

    def _wait(job: "submitit.SlurmJob", overrides: Sequence[str], queue: "_Queue") -> JobReturn:  # noqa: F821
        from submitit.core.utils import FailedJobError, UncompletedJobError

        result = job.paths.result_pickle
        gone = None
        # The folder is read anew, since a file that was looked for in vain is long remembered as missing by NFS.
        while result.name not in os.listdir(result.parent):
            jobs = queue.jobs()
            if jobs is None or job.job_id in jobs:
                gone = None
            elif gone is None:
                gone = time.monotonic()
            elif time.monotonic() - gone > GRACE_S:
                said = [line for line in (job.stderr() or "").splitlines() if "error" in line.lower()]
                why = f": {said[-1]}" if said else ""
                return lost(overrides, f"Slurm job {job.job_id} ended without a result{why}")
            time.sleep(1)
        try:
            return job.task(0).results()[0]  # of several nodes the first one's
        except (FailedJobError, UncompletedJobError) as error:
            return lost(overrides, str(error))

    class _Queue:
        """The jobs of this user that wait or run, by `squeue`, which works without accounting, as sacct does not."""

        def __init__(self) -> None:
            self._asked = float("-inf")
            self._jobs: set[str] | None = None

        def jobs(self) -> set[str] | None:
            """Their ids, 12 or 12_3; those of the last answer where the controller does not answer, None before any."""
            if time.monotonic() - self._asked > ASK_S:
                command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
                with suppress(OSError):
                    asked = subprocess.run(command, capture_output=True, text=True, check=False)
                    if asked.returncode == 0:
                        self._jobs = set(asked.stdout.split())
                self._asked = time.monotonic()
            return self._jobs


with suppress(ImportError):  # without the extra `ray` there is no such launcher
    from hydra_plugins.hydra_ray_launcher import ray_launcher

    class RayLauncher(ray_launcher.RayLauncher):
        """A Ray task a cell, each with the GPUs it asks for."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Hand all cells to Ray and wait; a job whose process died comes back as failed."""
            import ray
            from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray
            from ray.exceptions import RayError

            start_ray(self.ray_cfg.init)
            tasks = []
            for number, overrides in enumerate(job_overrides, start=initial_job_idx):
                config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
                with open_dict(config):
                    config.hydra.job.id = f"job_id_for_{number}"
                    config.hydra.job.num = number
                tasks.append(
                    launch_job_on_ray(
                        self.hydra_context, self.ray_cfg.remote, config, self.task_function, Singleton.get_state()
                    )
                )
            log.info("%d Ray tasks", len(tasks))
            returned = []
            for task, overrides in zip(tasks, job_overrides, strict=True):
                try:
                    returned.append(ray.get(task))
                except RayError as error:
                    returned.append(lost(overrides, str(error)))
            return returned
