"""A run on several nodes: what the first node's task and the others say to each other."""

import logging
import os
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mindseye.visualizer.nodes import here

if TYPE_CHECKING:
    from mindseye.facets.targets import FacetTargets
    from mindseye.visualizer.nodes import Node

TARGETS = "targets"  # the first node's facets, beside what the nodes say


def nodes_of(config: DictConfig) -> tuple[int, int]:
    """How many nodes and devices a job asks for; 1 for what is no number, which is told elsewhere."""
    asked = (OmegaConf.select(config, f"trainer.{name}") for name in ("nodes", "devices"))
    nodes, devices = (number if isinstance(number, int) else 1 for number in asked)
    return nodes, devices


def is_helper(nodes: int) -> bool:
    """Whether this is a task of such a run that is not the first."""
    return nodes > 1 and os.environ.get("SLURM_PROCID", "0") != "0"


def write_no_log() -> None:
    """The first node's task alone writes run.log."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()


def meet() -> None:
    """Wait until every node's task can draw, before the photographs are looked at."""
    if (node := here()) is not None:
        node.say("ready")
        node.wait("ready")


def hand_out(targets: "FacetTargets") -> None:
    """Give the facets to the other nodes' tasks."""
    if (node := here()) is not None:
        targets.save(node.place / TARGETS)
        node.say("found")


def handed_out(node: "Node") -> "FacetTargets | None":
    """The facets that the first node's task has found, None where nothing is left to draw."""
    from mindseye.facets.targets import FacetTargets

    node.say("ready")
    return None if node.wait("found", [0])[0].state == "done" else FacetTargets.load(node.place / TARGETS)


def let_go() -> None:
    """The result is kept, or was before: the other nodes' tasks may end."""
    if (node := here()) is not None:
        node.wait("there")
        node.say("done")
