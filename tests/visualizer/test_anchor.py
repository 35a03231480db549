"""An anchored picture stays the one it started from, as far as the weight says, and what it is pushed to."""

from functools import partial

import pytest
import torch
from given import given

from mindseye.networks.preparing import prepare
from mindseye.networks.way import layers_on_the_way
from mindseye.settings import Running
from mindseye.visualizer.anchor import Anchor, anchor_distance
from mindseye.visualizer.canvas import FourierCanvas, PixelCanvas
from mindseye.visualizer.fitting import fit, prepare_for
from mindseye.visualizer.method import Method
from mindseye.visualizer.module import FacetVisualizer
from mindseye.visualizer.objective import Objective

PHOTOGRAPH = partial(FourierCanvas, init="photograph")


def anchored(weight=50.0, layer="auto"):
    return Method(canvas=PHOTOGRAPH, objective=Objective(anchor=Anchor(weight=weight, layer=layer)))


@pytest.fixture(scope="module")
def prepared(network, targets):
    return prepare_for(network, targets, anchored())


def drawn(prepared, targets, weight=50.0, **arguments):
    method = {"canvas": PHOTOGRAPH, "objective": Objective(anchor=Anchor(weight=weight))}
    return fit(prepared, targets, **given(**{"steps": 4, "accelerator": "cpu", **method, **arguments}))


@pytest.fixture(scope="module")
def held(prepared, targets):
    return drawn(prepared, targets)


def test_the_distance_by_hand():
    start = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])  # ‖a₀‖² = 25
    maps = torch.tensor([[[[3.0, 1.0]], [[2.0, 0.0]]]])  # off by 1 and 2 at two places
    assert anchor_distance(maps, start).item() == pytest.approx(5 / 25)
    assert anchor_distance(torch.zeros_like(start), start).item() == pytest.approx(1)
    assert anchor_distance(10 * maps, 10 * start).item() == pytest.approx(5 / 25)
    leaf = start.clone().requires_grad_()
    anchor_distance(leaf, start).sum().backward()
    assert leaf.grad.abs().max() == 0  # finite where the picture is its start


@pytest.mark.parametrize("canvas", [partial(PixelCanvas, init="photograph"), FourierCanvas], ids=["pixel", "blend"])
def test_at_the_first_step_a_picture_is_its_start_in_whatever_view(prepared, targets, canvas):
    history = drawn(prepared, targets, canvas=canvas, steps=2).history
    first, last = torch.tensor(history["anchor"]).reshape(2, 3)
    assert first.max() < 1e-10
    assert last.min() > 1e-5  # the facet pulls at it


def test_the_photograph_stays_and_the_term_stands_where_it_is_on(prepared, targets, held):
    """By its pixels too, of which the term knows nothing."""
    free = drawn(prepared, targets, weight=0.0)
    photograph = targets.photographs[:, 0].float() / 255
    off, off_free = ((images - photograph).square().mean(dim=(1, 2, 3)) for images in (held.images, free.images))
    assert (off < off_free).all()
    assert held.extra == ("anchor",)
    pull, all_of_it = (held.history[f"gradient_{name}"][:3] for name in ("anchor", "total"))
    assert all(one < 1e-5 * whole for one, whole in zip(pull, all_of_it, strict=True))  # still the start
    assert free.extra == ()
    assert "anchor" not in free.history


def test_facets_come_out_the_same_one_by_one(prepared, targets, held):
    alone = drawn(prepared, targets, facets_per_batch=1)
    assert torch.equal(alone.images, held.images)
    assert alone.history == held.history


def test_part_of_the_facets_is_held_to_its_own_starts(prepared, targets):
    """As processes that share the facets out draw it; a checkpoint has no start, which is made again."""
    canvas = PHOTOGRAPH(targets.initial, targets.photographs.float() / 255)
    module = FacetVisualizer(prepared, canvas, anchored(), Running(), targets.C)
    whole = module.start.clone()
    module.keep(slice(1, 3))
    assert torch.equal(module.start, whole[1:3])
    assert "start" not in module.state_dict()


def test_the_layer_is_the_first_on_the_way_or_named_and_a_wrong_one_is_told(network, targets, prepared):
    assert prepared.early == layers_on_the_way(network, targets.layer)[0]
    assert prepare_for(network, targets, anchored(layer="conv1")).early == "conv1"
    assert prepare_for(network, targets, anchored(weight=0.0)).early is None
    wrong = {"layer9": "layer9", targets.layer: "is the target; name a layer before it", "fc": "name layers before"}
    for layer, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            prepare_for(network, targets, anchored(layer=layer))
    bare = prepare(network, targets.layer, way=prepared.way)
    with pytest.raises(ValueError, match="prepared without an early layer"):
        prepare_for(bare, targets, anchored())


def test_a_term_of_one_s_own_is_not_taken_for_it(prepared, targets):
    class Mine(Objective):
        def extra(self, seen):
            return {"anchor": seen.images.mean(dim=(1, 2, 3))}

    with pytest.raises(ValueError, match="has a term anchor of its own"):
        drawn(prepared, targets, objective=Mine(anchor=Anchor(weight=1)), steps=1)
