"""Which devices this machine has for a fit. No Lightning here: it takes seconds to import, and this is asked early."""

import logging

import torch

log = logging.getLogger(__name__)


def count_processes(devices: int, facets: int, accelerator: str) -> int:
    """How many processes draw so many facets. Raises ValueError where there are not as many devices."""
    processes = min(devices, facets)
    if processes < devices:
        log.info("%d facets are shared out among %d devices, not %d", facets, processes, devices)
    if processes > 1 and accelerator != "cpu":
        gpus = torch.cuda.device_count()
        if gpus == 0 and torch.backends.mps.is_available():
            gpus = 1
        if processes > gpus and (gpus or accelerator != "auto"):
            raise ValueError(
                f"devices must be at most {max(gpus, 1)}, not {devices}: this machine has {gpus} "
                f"GPU{'s' * (gpus != 1)}; or take accelerator=cpu"
            )
    return processes
