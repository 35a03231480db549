"""Whether a module of somebody's own can be looked into: what cannot is refused in one line, with what to give."""

import logging
from collections.abc import Sequence

import torch
from torch import nn

from mindseye.networks.modules import every_module, in_single, tensors
from mindseye.networks.network import check_normalisation, check_side, materialise
from mindseye.words import called, with_article

log = logging.getLogger(__name__)


def accepted(given: object, title: str, mean: Sequence[float], std: Sequence[float], size: int) -> nn.Module:
    """A module on whose layers hooks can stand. Raises ValueError, with what to give instead, where there is none."""
    check_normalisation(mean, std)
    if isinstance(given, torch.export.ExportedProgram):
        images = next(node.meta["val"] for node in given.graph.nodes if node.name in given.graph_signature.user_inputs)
        if isinstance(images.shape[0], int):
            raise ValueError(
                f"{title} was exported for {images.shape[0]} images at once: export it for any number, with "
                "torch.export.export(…, dynamic_shapes=({0: torch.export.Dim('batch')},))"
            )
        return torch.export.unflatten(given)
    if isinstance(given, torch.jit.ScriptModule):
        raise ValueError(
            f"{title} is a TorchScript program, which nothing can look into: give the nn.Module it was made of, with "
            "torch.jit.load(file).state_dict() as its weights, or export it with torch.export"
        )
    if not isinstance(given, nn.Module):
        raise ValueError(f"{title} must be a torch.nn.Module, not {called(given)}")
    if isinstance(given, torch.fx.GraphModule) and "train" in vars(given):  # whose train() is one that refuses
        raise ValueError(
            f"{title} is the flat module of a program of torch.export, whose layers are none any more: give the "
            "ExportedProgram itself"
        )
    _refuse_packed(given, title)
    single = _in_single(given, title)
    materialise(single, len(mean), check_side(size), title)
    return single


def _in_single(body: nn.Module, title: str) -> nn.Module:
    """The module itself where all its numbers are float32, as pictures are; else a copy in which they are."""
    others = {str(tensor.dtype) for _, tensor in tensors(body) if tensor.is_floating_point()} - {"torch.float32"}
    if not others:
        return body
    log.info("%s has numbers in %s: a copy in float32 is looked into", title, ", ".join(sorted(others)))
    return in_single(body)


def _refuse_packed(body: nn.Module, title: str) -> None:
    """Raises ValueError for weights in whole numbers, through which no gradient goes, and for sparse ones."""
    for path, part in every_module(body):
        kind = type(part)
        parameters = [parameter for parameter in part._parameters.values() if parameter is not None]
        whole = [parameter for parameter in parameters if not parameter.is_floating_point()]
        packed = "quantized" in kind.__module__.split(".") and not hasattr(part, "fake_quant_enabled")
        if any(parameter.layout != torch.strided for parameter in parameters):
            raise ValueError(
                f"{title} has sparse weights ({path or 'itself'} is {with_article(kind.__name__)}): give them as "
                "weight.to_dense()"
            )
        if packed or any(not parameter.is_complex() for parameter in whole):
            raise ValueError(
                f"{title} is quantised ({path or 'itself'} is {with_article(kind.__name__)}): no gradient goes through "
                "it; give the network that it was made of"
            )
