"""What tells a healthy training from one that went wrong: figures of embeddings, assignments and negatives."""

from __future__ import annotations

import torch
from torch.nn import functional as F

NEAR_BITS = 6  # of 64: within these the paper takes one of two slices of a volume for redundant


def spread(embedding: torch.Tensor) -> torch.Tensor:
    """How far apart directions point: 1 as evenly as on the whole sphere, 0 all the same.

    Standard deviation of each dimension times sqrt(D), the mean over dimensions: the collapse test of SimSiam
    (arXiv 2011.10566, Section 4.1). It does not see embeddings that vary along one line only; `rank_me` does.

    Args:
        embedding: (N, D), of any length, N > 1.

    Returns:
        float32 ().
    """
    z = F.normalize(embedding.float(), dim=1)  # (N, D)
    return z.std(dim=0).mean().mul(z.shape[1] ** 0.5)


def rank_me(embedding: torch.Tensor) -> torch.Tensor:
    """How many dimensions the directions use: exp of the entropy of their singular values, 1 to min(N, D).

    RankMe, Garrido et al. 2023 (arXiv 2210.02885, Equation 1), without its epsilon, of rows of length 1, so that no
    picture outweighs others. They are not centred: around their mean, embeddings that collapsed to a constant are
    noise in every direction, and look as rich as can be.

    Args:
        embedding: (N, D).

    Returns:
        float32 ().
    """
    values = torch.linalg.svdvals(F.normalize(embedding.float(), dim=1))  # (min(N, D),)
    return _exp_entropy(values / values.sum())


def prototype_usage(assignment: torch.Tensor) -> torch.Tensor:
    """Share of prototypes in use: exp of the entropy of the mean assignment, over K; 1 / K to 1.

    Args:
        assignment: (N, K), what each picture is assigned to before anything shares pictures out evenly; rows sum to 1.

    Returns:
        float32 ().
    """
    return _exp_entropy(assignment.float().mean(dim=0)) / assignment.shape[1]


def near_copies(
    images: torch.Tensor, negatives: torch.Tensor, hashes: torch.Tensor, volumes: torch.Tensor, bits: int = NEAR_BITS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the negatives that show nearly what the picture shows that they are pushed away from.

    Args:
        images: int64 (B,), positions in the data set.
        negatives: int64 (L,), positions in the data set of what all B are compared with; -1 for none. The picture
            itself is no negative.
        hashes: int64 (n,), the bits of the difference hash of each slice of the data set.
        volumes: int64 (n,), the number of each one's volume.
        bits: a slice of the same volume is a near-copy up to this Hamming distance.

    Returns:
        int64 () twice: pairs of a picture and a near-copy, and pairs of a picture and a negative.
    """
    other = (negatives >= 0) & (images[:, None] != negatives)  # (B, L)
    alike = other & (volumes[images, None] == volumes[negatives])
    rows, columns = alike.nonzero(as_tuple=True)  # few, so that few hashes are compared
    distances = popcount(hashes[images[rows]] ^ hashes[negatives[columns]])
    return (distances <= bits).sum(), other.sum()


def popcount(values: torch.Tensor) -> torch.Tensor:
    """Count the bits that are set in each int64, by adding neighbours in pairs, fours and eights."""
    pairs = values - ((values >> 1) & 0x5555555555555555)  # the sign that a shift drags in is masked away
    fours = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (eights * 0x0101010101010101) >> 56  # the product's highest byte holds the sum of all


def _exp_entropy(shares: torch.Tensor) -> torch.Tensor:
    entropy: torch.Tensor = torch.special.entr(shares).nansum()  # nan: shares of nothing
    return entropy.exp()
