"""How like its facet's photographs a picture is, and whether it is only one of them: formulas, in plain torch.

C facets, N photographs each, D channels. A figure that has nothing to be measured against is NaN.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

LEAST = 0.05  # a smaller denominator: what is to be told apart is hardly apart, or stands the wrong way round
BROAD = 32  # pixels a side that broad structure is looked at in
STEEPNESS = 0.16  # of the smooth forced choice, as its source has it


def share_of_the_way(value: Tensor, start: Tensor, goal: Tensor) -> Tensor:
    """(value − start) / (goal − start): 0 is where it began, 1 is the goal, all [C] -> [C].

    NaN where goal − start < LEAST: towards a goal that lies behind the start the worse value would be the farther.
    """
    way = goal - start
    return torch.where(way >= LEAST, (value - start) / way, torch.nan)


# ---- facets ----------------------------------------------------------------------------------------------------------


def centred_cosine(v: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """Every picture against every target: cosine of channel means v [C, D], t [C, D] about `mean` [D] -> [C, C]."""
    v, t = v - mean, t - mean
    return normalize(v, dim=1) @ normalize(t, dim=1).T


def retrieval(similarity: Tensor) -> Tensor:
    """1 where facet c's own target is the most similar of the C to its picture, else 0: [C, C] -> [C]."""
    similarity = similarity.nan_to_num(nan=-torch.inf)  # a facet without a target is nobody's nearest
    return (similarity.argmax(dim=1) == torch.arange(len(similarity), device=similarity.device)).float()


# ---- copies ----------------------------------------------------------------------------------------------------------


def broad_structure(images: Tensor) -> Tensor:
    """What is seen from afar: images [n, ch, S, S] -> [n, ch·32²], of norm 1; 0 for a flat image.

    Means over a 32² grid (the pixels themselves where there are fewer), less each channel's own mean: forms, not tint.
    """
    side = min(BROAD, images.shape[-1])
    low = adaptive_avg_pool2d(images.float(), side)
    return normalize((low - low.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=1)


def copy(picture: Tensor, photographs: Tensor) -> Tensor:
    """How nearly a picture is one photograph: unit features [C, P] and [C, N, P] -> [C].

    The largest cosine of the picture to a photograph of its facet, over the largest of one of these photographs to
    another. Above 1 the picture is nearer to one photograph than any two of them are to each other: a copy. A
    photograph of the facet itself has 1 or more by definition. NaN for a single photograph, and where even the two
    most alike have a cosine below LEAST.
    """
    nearest = torch.einsum("cp,cnp->cn", picture, photographs).amax(dim=1)
    among = torch.einsum("cnp,cmp->cnm", photographs, photographs)
    same = torch.eye(among.shape[1], dtype=torch.bool, device=among.device)
    apart = among.masked_fill(same, -torch.inf).amax(dim=(1, 2))
    return torch.where(apart >= LEAST, nearest / apart, torch.nan)


# ---- the forced choice -----------------------------------------------------------------------------------------------


def forced_choice(similarity: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Are photographs that nobody drew from matched with the right explanation? -> share [C], smooth form [C].

    similarity [H, C]: s(q, E_c), of held-out photograph q to the explanations E of facet c, their mean where there are
    several; labels [H]: the facet of each. For every pair of a photograph q⁺ of facet c and a q⁻ of another facet d,
    with Δ(q) = s(q, E_c) − s(q, E_d):

        share   that have Δ(q⁺) > Δ(q⁻), equal ones counting half. Chance is 0.5; people reach 0.82 with synthetic
                pictures and 0.92 with photographs (Borowski et al. 2021)
        smooth  mean of σ(0.16·[Δ(q⁺) − Δ(q⁻)]) (machine interpretability score, Zimmermann et al. 2024); of cosines
                that is 0.35 to 0.65

    NaN where there is no such pair.
    """
    C = similarity.shape[1]
    own = labels[:, None] == torch.arange(C, device=labels.device)
    share, smooth = similarity.new_full((2, C), torch.nan).unbind()
    for c in range(C):
        differences = []
        for d in range(C):
            delta = similarity[:, c] - similarity[:, d]
            if d != c:
                differences.append((delta[own[:, c], None] - delta[None, own[:, d]]).flatten())
        pairs = torch.cat(differences) if differences else similarity.new_empty(0)
        pairs = pairs[pairs.isfinite()]  # a facet that could not be drawn is nobody's explanation
        if len(pairs):
            share[c] = (pairs > 0).float().mean() + (pairs == 0).float().mean() / 2
            smooth[c] = (STEEPNESS * pairs).sigmoid().mean()
    return share, smooth


# ---- the way to the layer --------------------------------------------------------------------------------------------


def standard_ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, equal values sharing their mean rank, less their mean, of norm 1: [..., D].

    The inner product of two such is Spearman's correlation. NaN where all values are equal.
    """
    values = values.double().contiguous()
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values, right=False)
    ranks = (below + torch.searchsorted(ordered, values, right=True)).double()
    ranks = ranks - ranks.mean(dim=-1, keepdim=True)
    return ranks / ranks.norm(dim=-1, keepdim=True)


def rank_correlations(pictures: Tensor, photographs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At one layer, mean Spearman correlations of channel means with a facet's photographs', each [C].

    pictures [C, D], photographs [C, N, D]. Of the facet's picture; of the other facets' photographs; of one photograph
    of the facet with another. NaN for a single facet, and for single photographs.
    """
    C, N = photographs.shape[:2]
    drawn, natural = standard_ranks(pictures), standard_ranks(photographs)
    sums = natural.sum(dim=1)  # correlations are inner products, and their sums those of sums
    own = torch.einsum("cd,cd->c", drawn, sums) / N
    together = sums @ sums.T / N**2
    other = (together.sum(dim=1) - together.diagonal()) / (C - 1) if C > 1 else torch.full_like(own, torch.nan)
    same = (together.diagonal() * N - 1) / (N - 1) if N > 1 else torch.full_like(own, torch.nan)
    return own, other, same


def path(pictures: list[Tensor], photographs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Do the layers on the way answer a picture as they answer photographs? -> at each layer [C], over all [C].

    pictures and photographs: of each layer channel means [C, D_l] and [C, N, D_l]. With ρ of `rank_correlations`,
    (ρ_picture − ρ_other) / (ρ_same − ρ_other): 0 as photographs of other facets, 1 as another photograph of this
    facet, below 0 as no photograph (Geirhos et al. 2024, who found feature visualisations to take other ways). Over all
    layers: the same of the ρ's means over the layers, so that a layer where facets hardly differ says little. NaN where
    ρ_same − ρ_other < LEAST.
    """
    each = [rank_correlations(*pair) for pair in zip(pictures, photographs, strict=True)]
    layers = [share_of_the_way(own, other, same) for own, other, same in each]
    own, other, same = (torch.stack(correlations).mean(dim=0) for correlations in zip(*each, strict=True))
    return layers, share_of_the_way(own, other, same)
