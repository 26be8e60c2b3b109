"""CERTIFY: a lower bound on the distance that an image must move before the smoothed answer can change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from safemed_eval.core import Certificate, Vote
from safemed_eval.smoothing.noise import Noise, Streams, noisy_copies
from safemed_eval.smoothing.options import Smoothing
from safemed_eval.smoothing.sequential import Hits, Ladder, SequentialCertificate
from safemed_eval.smoothing.votes import read_votes, read_wrong

Rng = Callable[[str, int], torch.Generator]
"""Maps a purpose ("select", "estimate") and a chunk's index to a generator."""


@torch.no_grad()
def certify(
    vote: Vote, canvas: torch.Tensor, smoothing: Smoothing, *, rng: Rng, batch: int, gold: int | None = None
) -> Certificate:
    """Certify the smoothed answer around one image.

    n0 noisy copies choose a class, n fresh ones bound its probability from below by Clopper and Pearson.

    Args:
        vote: (B, 3, H, W) float32 in R -> (B,) int64 class ids in [0, K]; K means "no answer".
        canvas: (3, H, W) float32 in [0, 1], on the vote's device.
        rng: must give independent streams for the two purposes.
        batch: copies per call of `vote`; does not change the noise. Memory does not grow with n.
        gold: if given, the n copies are drawn only if this class was selected; otherwise there is no radius.
    Returns:
        Radius is L2 over the whole canvas in [0, 1] pixel units. With probability >= 1 - alpha over the noise it
        does not exceed the true one: the smoothed classifier gives the certified class for every canvas within it.
    Raises:
        ModelOutputError: the model returned NaN or infinite scores.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918), CERTIFY. Differs: abstains at p_lower == 1/2 too, and where class K is
        chosen; a class K exists at all; a tie of the selection goes to the first class.
    """
    votes0 = count_votes(vote, canvas, smoothing.noise, smoothing.n0, batch, lambda chunk: rng("select", chunk))
    if gold is not None and (wrong := read_wrong(votes0, gold)):
        return wrong
    votes = count_votes(vote, canvas, smoothing.noise, smoothing.n, batch, lambda chunk: rng("estimate", chunk))
    return read_votes(votes0, votes, smoothing)


@torch.no_grad()
def certify_gold(
    vote: Vote, canvas: torch.Tensor, ladder: Ladder, *, gold: int, rng: Rng, batch: int
) -> SequentialCertificate:
    """Certify that the smoothed answer around one image is gold, at the ladder's radii, with as few draws as needed.

    The draws are the first of those that `certify` uses for estimation, whatever the batch size. The rest of a batch
    after the end of the rule is not counted. See `Ladder` for the rule and `certify` for the other arguments.

    Returns:
        With probability >= 1 - alpha over the noise no certified radius exceeds the true one.
    Raises:
        ModelOutputError: the model returned NaN or infinite scores.
    """
    noise, n = ladder.spec.noise, ladder.spec.n

    def hits() -> Iterator[Hits]:
        for copies in noisy_copies(canvas, noise, n, batch, lambda chunk: rng("estimate", chunk)):
            yield (vote(copies) == gold).cpu().numpy()

    return ladder.follow(hits(), gold)


def count_votes(
    vote: Vote, canvas: torch.Tensor, noise: Noise, n: int, batch: int, streams: Streams, first: int = 0
) -> tuple[int, ...]:
    """Count the votes of n noisy copies, from `first` on, for each class 0 .. K."""
    return vote.count(noisy_copies(canvas, noise, n, batch, streams, first))
