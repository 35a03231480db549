import pytest
import torch
import torchvision.models as zoo
from torch import nn

from mindseye.networks import load_network
from mindseye.networks.preparing import prepare
from mindseye.networks.recording import record
from mindseye.networks.way import layers_on_the_way, resolve_early, resolve_way

# Of each resolution the last block and one half-way, of the first the last, by hand from each network's modules.
KNOWN = {
    ("resnet18", "layer4.1"): "relu layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0",
    ("resnet50", "layer3.5.conv1"): "relu layer1.0 layer1.2 layer2.1 layer2.3 layer3.1 layer3.4",
    ("mobilenet_v2", "features.10"): " ".join(f"features.{i}" for i in (1, 2, 3, 4, 6, 7, 9)),
    ("squeezenet1_1", "features.12"): " ".join(f"features.{i}" for i in (1, 3, 4, 6, 7, 9, 11)),
    ("densenet121", "features.denseblock4"): "features.relu0 features.denseblock1 features.transition1 "
    "features.denseblock2 features.transition2 features.denseblock3 features.transition3",
    ("convnext_tiny", "features.7.2"): "features.1.2 features.3.0 features.3.2 features.5.3 features.5.8 features.7.0 "
    "features.7.1",
    ("swin_t", "features.7.1"): "features.1.1 features.2 features.3.1 features.5.1 features.5.5 features.6 "
    "features.7.0",
}


def network(body, size=64, channels=3):
    return load_network(body.eval(), mean=[0.5] * channels, std=[0.25] * channels, size=size)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "layer"), KNOWN)
def test_auto_takes_the_blocks_of_each_resolution(name, layer):
    net = network(zoo.get_model(name, weights=None))
    assert list(layers_on_the_way(net, layer)) == KNOWN[name, layer].split()


def test_a_transformer_s_blocks_are_taken_at_even_depths():
    body = zoo.VisionTransformer(image_size=32, patch_size=8, num_layers=12, num_heads=2, hidden_dim=16, mlp_dim=32)
    found = layers_on_the_way(network(body, 32), "encoder.layers.encoder_layer_11")
    assert found == tuple(f"encoder.layers.encoder_layer_{block}" for block in (1, 4, 7, 10))


class Stages(nn.Module):
    """Two resolutions, one module called twice, one that writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.target = nn.Conv2d(6, 5, 1)

    def forward(self, x):
        return self.target(self.act(self.norm(self.down(self.act(self.stem(x))))))


@pytest.mark.parametrize("traced", [True, False])
def test_one_pass_records_them_all(traced):
    torch.manual_seed(0)
    body = Stages()
    body.norm.running_mean.normal_()
    body.norm.running_var.uniform_(0.5, 2)
    net = network(body)
    way = layers_on_the_way(net, "target")
    assert way == ("act@0", "act@1")
    images = torch.rand(2, 3, 64, 64)
    stem = body.stem((images - net.mean) / net.std).relu()
    expected = [stem, body.norm(body.down(stem)).relu()]
    if traced:
        made = prepare(net, "target", way=way)
        assert made.traced
        found = made(images).way
    else:
        with record(net, "target", way=way) as tape:
            tape(images)
        found = tape.way
    for one, right in zip(found, expected, strict=True):
        assert torch.allclose(one, right, atol=1e-5)


def test_what_is_written_over_is_kept_as_it_was():
    """stem's own output is what `act` then writes into."""
    body = Stages()
    net = network(body)
    images = torch.rand(1, 3, 64, 64)
    right = body.stem((images - net.mean) / net.std)
    assert right.min() < 0
    with record(net, "target", way=["stem"]) as tape:
        tape(images)
    for found in (tape.way[0], prepare(net, "target", way=["stem"])(images).way[0]):
        assert torch.allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_come_through_them_in_every_precision(precision):
    net = network(Stages())
    made = prepare(net, "target", way=layers_on_the_way(net, "target")).in_precision(precision)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    sum(one.float().square().sum() for one in made(images).way).backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().min(dim=0).values.max() > 0


def test_without_them_nothing_is_recorded():
    net = network(Stages())
    assert prepare(net, "target")(torch.rand(1, 3, 64, 64)).way == ()


def test_names_are_looked_up_and_refused():
    net = network(Stages())
    assert resolve_way(net, "target", ["stem", "down", "stem"]) == ("stem", "down")
    with pytest.raises(ValueError, match="the target"):
        resolve_way(net, "target", ["target"])
    with pytest.raises(ValueError, match="auto, or a list"):
        resolve_way(net, "target", "stem")
    with pytest.raises(ValueError, match="before the target"), record(net, "down", way=["target"]) as tape:
        tape(torch.rand(1, 3, 64, 64))
    made = prepare(net, "target", way=["stem"])
    with pytest.raises(ValueError, match="prepare the network again"):
        prepare(made, "target", way=["down"])


def test_a_network_that_does_not_take_its_own_size_is_told(caplog):
    """Not known is not none: what was to be matched would be left out in silence."""
    picky = network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 11)), 8)
    assert layers_on_the_way(picky, "2") == ()
    [line] = caplog.messages
    assert "cannot look at an image of its own size, 8×8 (RuntimeError" in line
    assert "the layers on the way to 2 are not known" in line


def test_nothing_before_the_first_layer():
    assert layers_on_the_way(network(Stages()), "stem") == ()


class Listed(nn.Module):
    """Blocks in a list, which is never called itself, and a target behind them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(3))
        self.target = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.target(x)


def test_a_list_of_modules_is_looked_into():
    assert layers_on_the_way(network(Listed(), 32), "target") == ("blocks.0", "blocks.1", "blocks.2")
    assert layers_on_the_way(network(Listed(), 32), "blocks.2") == ("blocks.0", "blocks.1")


class Moody(Stages):
    """Cannot be traced."""

    def forward(self, x):
        return super().forward(x if x.mean() > -1 else -x)


@pytest.mark.parametrize("body", [Stages, Moody])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("way", "early"), [((), "stem"), (("act@1",), "stem"), (("act@0", "act@1"), "act@0")])
def test_the_early_layer_alone_answers_as_in_the_whole_pass(body, precision, way, early):
    """To the bit, for one picture and several, beside the layers on the way, which stay what they are."""
    torch.manual_seed(0)
    net = network(body())
    made = prepare(net, "target", way=way, early=early).in_precision(precision)
    assert made.traced == (body is Stages)
    without = prepare(net, "target", way=way).in_precision(precision)
    for count in (1, 2, 3):
        images = torch.rand(count, 3, 64, 64, requires_grad=True)
        answers, early_answer = made.with_early(images)
        alone = made.look_early(images.detach())
        assert torch.equal(early_answer, alone)
        assert not alone.requires_grad
        assert len(answers.way) == len(made.way) == len(way)
        assert all(map(torch.equal, answers.way, without(images).way))
    assert without.with_early(images)[1] is None


def test_an_early_layer_is_the_first_on_the_way_or_named():
    net = network(Stages())
    assert resolve_early(net, "target", "auto") == layers_on_the_way(net, "target")[0]
    assert resolve_early(net, "target", "down") == "down"
    with pytest.raises(ValueError, match="is the target; name a layer before it"):
        resolve_early(net, "target", "target")
    with pytest.raises(ValueError, match="no layer with a map comes before stem"):
        resolve_early(net, "stem", "auto")
    made = prepare(net, "target", early="stem")
    assert prepare(made, "target", early="stem") is made
    with pytest.raises(ValueError, match="without the early layer down: prepare the network again"):
        prepare(made, "target", early="down")
    with pytest.raises(ValueError, match="without an early layer"):
        prepare(net, "target").look_early(torch.rand(1, 3, 64, 64))
