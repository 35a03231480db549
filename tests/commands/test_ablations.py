"""Every ablation composes and draws, and switches off what its method does not have."""

from dataclasses import replace

import pytest
import torch

from mindseye.commands.checking import check
from mindseye.commands.composing import ConfigurationError, compose, config_folder
from mindseye.commands.constructors import check_constructors
from mindseye.commands.parts import make_method
from mindseye.commands.stages import load, make_network
from mindseye.facets.discovery import discover_facets
from mindseye.networks.preparing import prepare
from mindseye.networks.way import layers_on_the_way
from mindseye.settings import Facets, Running
from mindseye.visualizer.fitting import fit
from mindseye.visualizer.objective import matching_of
from mindseye.visualizer.running_statistics import batch_norms

ABLATIONS = sorted(path.stem for path in (config_folder() / "ablation").glob("*.yaml"))
WHOLE = {"dm", "ad", "strength", "matching", "penalty", "tv"}
TERMS = {  # what is left of the loss
    "no_dm": WHOLE - {"dm"},
    "no_ad": WHOLE - {"ad"},
    "no_strength": WHOLE - {"strength"},
    "no_matching": WHOLE - {"matching"},
    "no_penalty": WHOLE - {"penalty"},
    "no_tv": WHOLE - {"tv"},
    "matching_only": {"matching", "penalty", "tv"},
    "published": {"dm", "ad", "penalty"},
    "released": {"dm", "ad", "penalty"},
    "lucid": {"dm"},
    "maco_lucid": {"dm"},
    "vital": {"matching"},
    "deep_inversion": {"dm", "matching"},
}
STARTS = dict.fromkeys(("noise", "from_nothing", "lucid", "maco_lucid", "vital", "deep_inversion"), "noise")
STARTS |= {"published": "facet", "released": "facet", "sketch": "sketch"}


@pytest.fixture(scope="module")
def looked(network, photographs):
    """The demo's network with the layers on the way, two facets of it, and the whole method's start."""
    layer = network.resolve(depth="middle")
    prepared = prepare(network, layer, way=layers_on_the_way(network, layer))
    targets = discover_facets(prepared, photographs, layer, Facets(C=2, k=8, N=4))
    return prepared, targets, compose([]).canvas.init


def test_each_that_takes_terms_away_is_there():
    assert set(TERMS) | set(STARTS) <= set(ABLATIONS)


def test_what_vital_matches_counts_alike_to_the_end():
    """Its weights do not fall: the calibrated schedule is this method's own."""
    matching = make_method(check(compose(["ablation=vital"]))).schedule.matching
    assert [matching(t, 80) for t in (1, 40, 80)] == [1, 1, 1]


@pytest.mark.parametrize("name", ["demo", "resnet18"])
def test_what_deep_inversion_holds_pictures_to_is_the_network_s(name):
    """Whatever its source: a part of the configuration that names the network is given the network itself.

    Random weights are those of the network that draws, which the run's seed makes.
    """
    words = [f"network={name}", *([] if name == "demo" else ["network.weights=null"]), "ablation=deep_inversion"]
    run = check(compose(words))
    method = make_method(run)
    network = load(run, method).network
    assert method.objective.network.fingerprint() == network.fingerprint()
    assert len(batch_norms(method.objective.network)) == sum(
        isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()
    )


@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("network", "torch.nn.Identity", "torch.nn.Identity gives a bare Identity: network=callable network.targ"),
        ("transfer.mine", "torch.nn.Identity", "transfer.mine: .* transfer=callable transfer.callable.target=torch.nn"),
        ("network", "builtins.dict", "network: the network must be what load_network gives, not a dict"),
    ],
)
def test_a_constructor_that_gives_no_network_is_one_line(place, target, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        make_network({"_target_": target}, place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_draws(ablation, looked):
    config = compose([f"ablation={ablation}"])
    run = check(config)
    check_constructors(run.parts)
    method = make_method(run)
    weights = method.objective.weights({"penalty": 1e-3, "matching": 1.0, "strength": 1.0}, 2)
    assert {name for name, weight in weights.items() if weight} == TERMS.get(ablation, WHOLE)
    network, targets, start = looked
    assert config.canvas.init == STARTS.get(ablation, start)
    if matching_of(method.objective) is None:  # which asks for no layer on the way
        network = prepare(network, targets.layer)
    drawn = fit(network, targets, replace(method, steps=2), Running(accelerator="cpu"))
    assert drawn.images.shape == targets.initial.shape
    assert torch.isfinite(drawn.images).all()
    assert not drawn.stopped
