"""A traced program made quicker: BatchNorms folded, convolutions frozen, weights laid out channels last."""

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from mindseye.networks.frozen_convolution import FrozenConv2d

_FOLDS = {
    (nn.Conv1d, nn.BatchNorm1d): fuse_conv_bn_eval,
    (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn_eval,
    (nn.Conv3d, nn.BatchNorm3d): fuse_conv_bn_eval,
    (nn.Linear, nn.BatchNorm1d): fuse_linear_bn_eval,
}
WEIGHTED = {*(weighted for weighted, _ in _FOLDS), FrozenConv2d}  # what takes its weights in another precision


def fold_norms(straight: fx.GraphModule) -> int:
    """Folds each BatchNorm that is the only reader of a convolution (or linear layer); returns how many."""
    modules = dict(straight.named_modules(remove_duplicate=False))
    called = [id(modules[node.target]) for node in straight.graph.nodes if node.op == "call_module"]
    folded = 0
    for node in list(straight.graph.nodes):
        if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        if source.op != "call_module" or len(source.users) != 1 or node.kwargs or len(node.args) != 1:
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if called.count(id(convolution)) != 1:
            continue
        merged = _folded(convolution, norm)
        if merged is None:
            continue
        straight.add_submodule(source.target, merged)
        modules[source.target] = merged
        if type(norm).__name__ == "BatchNormAct2d":  # timm's, whose activation (and dropout) stay
            straight.add_submodule(node.target, nn.Sequential(norm.drop, norm.act))
        else:
            node.replace_all_uses_with(source)
            straight.graph.erase_node(node)
        folded += 1
    straight.delete_all_unused_submodules()
    straight.recompile()
    return folded


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module | None:
    """Both in one; None where they do not fit: other classes (a subclass may compute anything), batch statistics."""
    fuse = _FOLDS.get((type(convolution), type(norm)))
    if fuse is None and type(convolution) is nn.Conv2d and is_normalisation(norm):
        fuse = fuse_conv_bn_eval
    if fuse is None or norm.running_mean is None:
        return None
    return fuse(convolution, norm)


def freeze_convolutions(straight: fx.GraphModule) -> None:
    """Puts a FrozenConv2d in the place of each convolution that it suits."""
    made: dict[nn.Module, FrozenConv2d] = {}
    for name, module in list(straight.named_modules(remove_duplicate=False)):
        if FrozenConv2d.suits(module):
            if module not in made:
                made[module] = FrozenConv2d.of(module)
            straight.add_submodule(name, made[module])


def in_channels_last(tensor: Tensor) -> Tensor:
    """As `Module.to(memory_format=…)` has it, which fails where a tensor has five dimensions and leaves weights of 1×1
    kernels and of one channel as they are: they are contiguous either way, and torch reads their strides as channels
    first. Then it would compute, and hand on, gradients so."""
    return torch.empty_like(tensor, memory_format=torch.channels_last).copy_(tensor) if tensor.ndim == 4 else tensor


def is_normalisation(module: nn.Module) -> bool:
    """A frozen BatchNorm, or timm's with an activation of its own: one step of the program, to be folded as one."""
    kind = type(module).__name__
    return kind == "FrozenBatchNorm2d" or (kind == "BatchNormAct2d" and isinstance(module, nn.BatchNorm2d))
