import pytest
import torch

from mindseye.visualizer.transformations import Transformations, view


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(side=33):
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    return torch.stack([x, y, x * y])[None]


def test_nothing_asked_nothing_changed():
    none = Transformations(jitter=0, scale=0, rotation=0)
    assert not none.moves
    matrices = none.draw(1, generator())
    assert torch.allclose(view(picture(), matrices), picture(), atol=1e-6)


def test_a_view_of_half_a_turn_is_the_picture_turned():
    matrix = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])
    assert torch.allclose(view(picture(), matrix), picture().flip((2, 3)), atol=1e-5)


def test_a_shift_is_in_fractions_of_the_side():
    drawn = Transformations(jitter=0.1, scale=0, rotation=0).draw(1000, generator())
    shift = drawn[:, :, 2] / 2  # affine_grid's coordinates run from −1 to 1
    assert shift.abs().max() <= 0.1
    assert shift.abs().max() > 0.095
    assert torch.allclose(drawn[:, :, :2], torch.eye(2).expand(1000, 2, 2), atol=1e-6)


def test_scale_and_rotation_keep_to_their_ranges():
    drawn = Transformations(jitter=0).draw(2000, generator())[:, :, :2]
    zoom = 1 / torch.linalg.det(drawn).sqrt()
    angle = torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]).rad2deg()
    assert 0.8 - 1e-4 <= zoom.min() < 0.81
    assert 1.19 < zoom.max() <= 1.2 + 1e-4
    assert angle.abs().max() <= 10 + 1e-3


def test_the_same_seed_draws_the_same_views_each_facet_another():
    asked = Transformations()
    first = asked.draw(4, generator())
    assert torch.equal(first, asked.draw(4, generator()))
    assert not torch.equal(first[0], first[1])


def test_gradients_pass_through():
    image = picture().requires_grad_()
    view(image, Transformations().draw(1, generator())).sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "value"), [("jitter", -0.1), ("jitter", 0.6), ("scale", 1.0), ("noise", 2), ("every", 0)]
)
def test_ranges_are_checked(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, not {value}$"):
        Transformations(**{name: value})


def test_strength_shrinks_every_range_and_keeps_the_draw():
    asked = Transformations(jitter=0.1, scale=0.0, rotation=20)
    whole, half = (asked.draw(50, generator(), strength) for strength in (1.0, 0.5))
    assert torch.allclose(half[:, :, 2], whole[:, :, 2] / 2)
    angles = [torch.atan2(drawn[:, 1, 0], drawn[:, 0, 0]) for drawn in (whole, half)]
    assert torch.allclose(angles[1], angles[0] / 2, atol=1e-6)
    assert torch.allclose(asked.draw(3, generator(), 0.0), torch.eye(2, 3).expand(3, 2, 3), atol=1e-6)
