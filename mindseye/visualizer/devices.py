"""Which devices this machine has for a fit. No Lightning here: it takes seconds to import, and this is asked early."""

import logging

import torch

log = logging.getLogger(__name__)


def count_processes(devices: int, facets: int, accelerator: str, nodes: int = 1) -> int:
    """How many processes draw so many facets, on all nodes. Raises ValueError where this one lacks devices."""
    processes = min(devices * nodes, facets)
    if processes < devices * nodes:
        log.info("%d facets are shared out among %d devices, not %d", facets, processes, devices * nodes)
    here = -(-processes // nodes)
    if here > 1 and accelerator != "cpu":
        gpus = torch.cuda.device_count()
        if gpus == 0 and torch.backends.mps.is_available():
            gpus = 1
        if here > gpus and (gpus or accelerator != "auto"):
            raise ValueError(
                f"devices must be at most {max(gpus, 1)}, not {devices}: this machine has {gpus} "
                f"GPU{'s' * (gpus != 1)}; or take accelerator=cpu"
            )
    return processes
