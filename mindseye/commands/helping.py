"""A run on several nodes: what the first node's task tells the others, and what one of those does."""

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mindseye.commands.checking import check_constructors
from mindseye.commands.stages import check_early, load, make_method, prepare_drawing
from mindseye.settings import Run
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


def help_draw(run: Run, node: "Node") -> None:
    """All that a task does that is not the first: its share of the pictures, of the facets that the first has found."""
    from mindseye.facets.targets import FacetTargets

    check_constructors(run.parts)
    method = make_method(run)
    check_early(run)
    drawing, method, _ = prepare_drawing(run, load(run, method), method)
    from mindseye.visualizer.fitting import fit, prepare_for  # Lightning: what is wrong has been said by now

    node.say("ready")
    if node.wait("found", [0])[0].state == "done":  # a sweep's cell that was completed before
        return
    targets = FacetTargets.load(node.place / TARGETS)
    prepared = prepare_for(drawing, targets, method)
    fit(prepared, targets, method, replace(run.running, folder=str(node.folder)))
    node.wait("done", [0])


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


def let_go() -> None:
    """The result is kept, or was before: the other nodes' tasks may end."""
    if (node := here()) is not None:
        node.wait("there")
        node.say("done")
