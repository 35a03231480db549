import pytest
import torch
from torch import nn

from mindseye.networks import load_network
from mindseye.visualizer.running_statistics import RunningStatistics, statistics_distance


class Two(nn.Module):
    """A BatchNorm on the picture itself, one on twice what the first gives."""

    def __init__(self):
        super().__init__()
        self.second = nn.BatchNorm2d(1, eps=0)  # registered first, reached second
        self.first = nn.BatchNorm2d(1, eps=0)

    def forward(self, x):
        return self.second(2 * self.first(x))


def network(running):
    body = Two()
    for module, (mean, variance) in running.items():
        getattr(body, module).running_mean.fill_(mean)
        getattr(body, module).running_var.fill_(variance)
    return load_network(body.eval(), mean=[0.0], std=[1.0], size=8)


def checkers(low, high):
    """Mean (low + high)/2, standard deviation (high − low)/2."""
    board = (torch.arange(8)[:, None] + torch.arange(8)[None]) % 2
    return torch.where(board == 1, high, low).double().float()[None, None]


def test_it_is_the_formula_s_by_hand():
    """Of 0.2 and 0.6: mean 0.4, variance 0.04. The first BatchNorm (0, 1) leaves them; the second sees 0.8 and 0.16."""
    net = network({"first": (0.0, 1.0), "second": (0.5, 0.1)})
    distance = statistics_distance(net, checkers(0.2, 0.6), first=10)
    assert float(distance) == pytest.approx(10 * (0.4 + 0.96) + (0.3 + 0.06), abs=1e-4)


def test_what_has_the_running_statistics_is_at_0_and_facets_do_not_mix():
    net = network({"first": (0.4, 0.04), "second": (0.0, 4.0)})
    own, other = checkers(0.2, 0.6), checkers(0.0, 1.0)
    alone = statistics_distance(net, own)
    assert float(alone) == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(statistics_distance(net, torch.cat([own, other]))[:1], alone, atol=1e-5, rtol=0)


def test_its_gradient_leads_there():
    net = network({"first": (0.4, 0.04), "second": (0.0, 4.0)})
    images = checkers(0.1, 0.9).requires_grad_()
    statistics_distance(net, images).sum().backward()
    assert images.grad[0, 0, 0, 1] > 0 > images.grad[0, 0, 0, 0]  # 0.9 is to fall, 0.1 to rise


def test_a_network_without_batch_norms_is_refused():
    net = load_network(nn.Conv2d(1, 2, 3), mean=[0.5], std=[0.5], size=8)
    with pytest.raises(ValueError, match="has no BatchNorm"):
        RunningStatistics(net)
