"""A prepared network beside what a plain forward hook sees in the network as it is: targets, gradients on the image.

The hook keeps a clone: many architectures go on in place, and would write over what it keeps.
"""

import copy

import pytest
import torch
from torch import nn

from mindseye.networks import load_network
from mindseye.networks.preparing import prepare

# A layer of each: some from which the network goes on in place, some in the middle of a block.
QUICK = {"resnet18": "layer2.0.bn2", "mobilenet_v3_small": "features.6.block.2", "squeezenet1_1": "features.7.squeeze"}
TORCHVISION = {
    "resnet50": "layer3.2.conv2", "resnext50_32x4d": "layer2.1.bn3", "densenet121": "features.denseblock2.denselayer3",
    "mobilenet_v2": "features.8.conv.1", "efficientnet_b0": "features.4.1", "vgg11_bn": "features.15",
    "googlenet": "inception4b", "inception_v3": "Mixed_5c", "convnext_tiny": "features.3.1",
    "regnet_y_400mf": "trunk_output.block3.block3-1", "shufflenet_v2_x1_0": "stage3.1", "mnasnet1_0": "layers.10",
    "vit_b_16": "encoder.layers.encoder_layer_3", "swin_t": "features.3.1",
}  # fmt: skip
TIMM = {
    "resnet26d": "layer2.1.bn2", "hrnet_w18_small": "stage2.0.branches.0", "dla34": "level3",
    "efficientnet_lite0": "blocks.3.1", "ghostnet_100": "blocks.4", "repvgg_a0": "stages.1.0",
    "res2net50_26w_4s": "layer2.0", "darknet53": "stages.1", "deit_tiny_patch16_224": "blocks.5",
    "mixer_s32_224": "blocks.3",
}  # fmt: skip
FIXED = {"vit_b_16": 224, "deit_tiny_patch16_224": 224, "mixer_s32_224": 224, "inception_v3": 128}


def unsettle(body):
    """Statistics and weights as after training: those of a fresh BatchNorm fold to nothing."""
    for part in body.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            if part.weight is not None:
                part.weight.data.uniform_(0.5, 1.5)
                part.bias.data.normal_(0, 0.2)


def through_a_hook(network, layer, images):
    kept = []
    module = network.body.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
    try:
        network(images)
    finally:
        handle.remove()
    return kept[0]


def target_and_gradient(answer, images, weights):
    x = images.clone().requires_grad_()
    target = answer(x)
    (gradient,) = torch.autograd.grad((target * weights(target)).sum(), x)
    return target.detach().double(), gradient.double()


def check(name, layer):
    """As near to the network in double precision as torch's own single precision is.

    A ReLU whose input is 0 up to rounding, or a maximum of equals, turns a whole path of the gradient on or off: so it
    is for some of three draws of images, while a wrong gradient is wrong for all.
    """
    torch.manual_seed(0)
    network = load_network(name, weights=None, size=FIXED.get(name.removeprefix("timm/"), 96))
    unsettle(network.body)
    exact = copy.deepcopy(network).double()
    prepared = prepare(network, layer)
    excess = []
    for _ in range(3):
        images = torch.rand(2, 3, network.size, network.size)
        drawn = []

        def weights(target, drawn=drawn):
            drawn.append(torch.randn_like(target) if not drawn else drawn[0].to(target.dtype))
            return drawn[-1]

        ours = target_and_gradient(lambda x: prepared(x)[0], images, weights)
        plain = target_and_gradient(lambda x: through_a_hook(network, layer, x), images, weights)
        right = target_and_gradient(lambda x: through_a_hook(exact, layer, x), images.double(), weights)
        assert ours[0].shape == right[0].shape
        errors = [
            [float((of - to).norm() / to.norm()) for of, to in zip(one, right, strict=True)] for one in (ours, plain)
        ]
        assert errors[0][0] < 1e-5
        excess.append(errors[0][1] - 3 * errors[1][1])
        if excess[-1] < 1e-4:
            return
    raise AssertionError(f"gradients are off by {excess} more than three times torch's own error")


@pytest.mark.parametrize("name", QUICK)
def test_a_prepared_network_is_the_network_up_to_its_layer(name):
    check(name, QUICK[name])


@pytest.mark.long
@pytest.mark.parametrize("name", TORCHVISION)
def test_so_it_is_for_every_kind_of_torchvision_s(name):
    check(name, TORCHVISION[name])


@pytest.mark.long
@pytest.mark.parametrize("name", TIMM)
def test_and_of_timm_s(name):
    pytest.importorskip("timm")
    check(f"timm/{name}", TIMM[name])
