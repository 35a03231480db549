"""What scripts/benchmark.py measures runs: on a small network and small images, since its figures are not looked at."""

import benchmark
import pytest
import torch

pytestmark = pytest.mark.long
CASE = benchmark.Case("resnet18", "layer2.1", 2, 64)
CPU = torch.device("cpu")


def measured(rows):
    """The rows by name, each with a figure above 0."""
    figures = {row.name: row.value for row in rows}
    assert figures
    assert all(value is not None and value > 0 for value in figures.values())
    return figures


def test_steps_of_ours_beside_the_bare_one():
    wanted = ("default", "every filter on", "bfloat16", "neither folded")
    figures = measured(benchmark.steps(CASE, CPU, 1, wanted))
    assert {name.partition(": ")[2] for name in figures} >= {"default (no filter)", "default without matching"}


def test_a_plain_loop_takes_the_same_terms_as_the_module():
    network = benchmark.random_network(CASE.network, CPU)
    targets = benchmark.case_targets(CASE, network)
    benchmark.plain_loop(network, targets, CPU)()


@pytest.mark.parametrize("what", ["bare", "fit"])
def test_the_child_whose_memory_is_measured(what, capsys):
    benchmark.memory_child(what, CASE, CPU)
    assert '"process": ' in capsys.readouterr().out
