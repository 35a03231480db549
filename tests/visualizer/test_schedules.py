import pytest
import torch

from mindseye.visualizer.schedules import Linear, Schedules


@pytest.mark.parametrize("T", [2, 3, 7, 200, 2001])
@pytest.mark.parametrize(("start", "end"), [(1e-3, 1e-4), (0.3, 0.7), (5.0, 5.0)])
def test_exactly_start_and_exactly_end(T, start, end):
    linear = Linear(start, end)
    assert linear(1, T) == start
    assert linear(T, T) == end


def test_equation_five_as_corrected():
    """((end − start)·t + start·T − end)/(T − 1), by hand at T = 5."""
    assert [Linear(8.0, 0.0)(t, 5) for t in range(1, 6)] == pytest.approx([8, 6, 4, 2, 0])


def test_as_printed_it_would_miss_both_ends():
    T, start, end = 5, 8.0, 1.0
    first, last = (((end - start) * t + start * T) / (T - 1) for t in (1, T))
    assert first != start
    assert last != end


def test_a_single_step_has_the_first_value():
    assert Linear(3.0, 1.0)(1, 1) == 3.0


@pytest.mark.parametrize("name", ["lr", "mask_sigma", "blur_sigma", "denoise_weight", "penalty"])
def test_negative_values_are_refused(name):
    for given in ([1.0, -1.0], [True, 1.0], ["a", 1.0], [1.0], [1.0, 1.0, 1.0, 1.0], 3, {"start": 1.0, "end": 0.0}):
        with pytest.raises(ValueError, match=f"^{name}(:| must)") as caught:
            Schedules(**{name: given})
        assert "\n" not in str(caught.value)


def test_a_pair_is_a_line():
    lines = Schedules(lr=Linear(0.3, 0.1), views=Linear(1.0, 0.0, 0.5))
    assert Schedules(lr=[0.3, 0.1], views=(1.0, 0.0, 0.5)) == lines


def test_views_are_a_share():
    with pytest.raises(ValueError, match="views"):
        Schedules(views=Linear(1.5, 0.0))


@pytest.mark.parametrize("T", [2, 3, 7, 80, 2001])
@pytest.mark.parametrize("until", [0.1, 0.5, 0.9, 1.0])
def test_until_reaches_the_end_early_and_keeps_it(T, until):
    linear = Linear(1.0, 0.2, until=until)
    values = [linear(t, T) for t in range(1, T + 1)]
    assert values[0] == 1.0
    for t, value in enumerate(values, start=1):
        way = (t - 1) / (T - 1) / until
        assert value == pytest.approx(1.0 - 0.8 * min(way, 1.0))
        if way >= 1:
            assert value == 0.2


@pytest.mark.parametrize("until", [0.0, -0.5, 1.01, float("nan")])
def test_until_is_a_share_of_the_steps(until):
    with pytest.raises(ValueError, match="until"):
        Linear(1.0, 0.0, until=until)


@pytest.mark.parametrize("name", ["lr", "mask_sigma", "blur_sigma", "denoise_weight", "penalty"])
@pytest.mark.parametrize("value", [1e39, 1e300, float("inf")])
def test_what_no_float32_holds_is_refused_by_name(name, value):
    """torch would say that a value cannot be converted, and not which."""
    with pytest.raises(ValueError, match=rf"^{name}: start and end must be numbers of 0 to 3\.4e\+38, not "):
        Schedules(**{name: [1.0, value]})
    largest = torch.finfo(torch.float32).max
    assert Schedules(**{name: Linear(largest, 1.0)}).at(1, 5)[name] == largest
