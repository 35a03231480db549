"""Is a facet worth drawing? Are its photographs alike to a network, and unlike other facets' (SemanticLens)."""

import torch
from torch import Tensor


def clarity(features: Tensor, mean: Tensor) -> Tensor:
    """How alike a facet's photographs are: features [C, N, D], their `mean` over all photographs [D] -> [C].

    The mean cosine of two of them about `mean`, n/(n − 1)·(‖mean of unit features‖² − 1/n) (Dreyer et al. 2025): 1
    where all are the same, 0 where they have nothing in common; NaN for one photograph.
    """
    units = _units(features, mean)
    n = units.shape[1]
    if n < 2:
        return torch.full((len(units),), torch.nan)
    return (n / (n - 1) * (units.mean(dim=1).square().sum(dim=1) - 1 / n)).float()


def redundancy(features: Tensor, mean: Tensor) -> Tensor:
    """How like the most similar other facet each one is: features [C, N, D], `mean` [D] -> [C].

    The largest cosine of two facets' mean unit features; 1 is the same facet twice; NaN for one facet.
    """
    middles = torch.nn.functional.normalize(_units(features, mean).mean(dim=1), dim=1)
    if len(middles) < 2:
        return torch.full((len(middles),), torch.nan)
    return (middles @ middles.T).fill_diagonal_(-torch.inf).max(dim=1).values.float()


def _units(features: Tensor, mean: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.double() - mean.double(), dim=2)
