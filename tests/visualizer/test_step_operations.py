"""A step is few operations: each costs a GPU a launch, whatever its size, and a small network is bound by launches."""

import pytorch_lightning as pl
from torch.utils._python_dispatch import TorchDispatchMode

from mindseye.settings import Running
from mindseye.visualizer.fitting import fit, prepare_for
from mindseye.visualizer.matching import Matching
from mindseye.visualizer.method import Method
from mindseye.visualizer.objective import Objective

# Further ones make no launch: views of what is there, and empty room.
FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "as_strided", "unbind", "split", "split_with_sizes", "view_as_real", "view_as_complex", "empty",
    "empty_like", "empty_strided", "new_empty", "resize_", "diagonal",
}  # fmt: skip


class Operations(TorchDispatchMode):
    """How many there are."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.partition(".")[0] not in FREE
        return func(*args, **(kwargs or {}))


class OneStep(pl.Callback):
    """Counts the second step's: the first fills tables."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            self.operations = Operations()
            self.operations.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            self.operations.__exit__(None, None, None)


def of_a_step(network, targets, objective):
    one = OneStep()
    # Without gradients of their own, as all but every fortieth step are.
    method = Method(steps=3, objective=objective, filters=[one])
    fit(prepare_for(network, targets, method), targets, method, Running(accelerator="cpu", gradients=None))
    return one.operations.count


def test_a_step_is_few_operations(network, targets):
    matching, without = (of_a_step(network, targets, Objective(matching=Matching(weight=weight))) for weight in (50, 0))
    assert without < 380  # of which the network has some 60
    layers = len(targets.way) - 1
    # 75 are the colours, whose values are sorted, and what all layers share.
    assert matching - without < 90 + 18 * layers
