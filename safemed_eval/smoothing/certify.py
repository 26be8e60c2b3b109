"""CERTIFY: a lower bound on the distance that an image must move before the smoothed answer can change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice

import torch

from safemed_eval.core import Certificate, Order, Vote
from safemed_eval.smoothing.copies import Streams, noisy_copies
from safemed_eval.smoothing.noise import FileView, Noise, View
from safemed_eval.smoothing.options import Smoothing
from safemed_eval.smoothing.sequential import Draws, Ladder, SequentialCertificate
from safemed_eval.smoothing.votes import read_votes, read_wrong

Rng = Callable[[str, int], torch.Generator]
"""Maps a purpose ("select", "estimate") and a chunk's index to a generator."""
Orders = Callable[[str, int], Order]
"""Maps a purpose and a copy's number to the order of the options in which that copy is asked."""


@torch.no_grad()
def certify(
    vote: Vote,
    canvas: torch.Tensor,
    smoothing: Smoothing,
    *,
    rng: Rng,
    batch: int,
    gold: int | None = None,
    orders: Orders | None = None,
    view: View | None = None,
) -> Certificate:
    """Certify the smoothed answer around one image.

    n0 noisy copies choose a class, n fresh ones bound its probability from below by Clopper and Pearson.

    Args:
        vote: (B, 3, H, W) float32 in R -> (B,) int64 class ids in [0, K]; K means "no answer".
        canvas: (3, H, W) float32 in [0, 1], on the vote's device.
        rng: must give independent streams for the two purposes.
        batch: copies per call of `vote`; does not change the noise. Memory does not grow with n.
        gold: if given, the n copies are drawn only if this class was selected; otherwise there is no radius.
        orders: must be independent of the noise and of each other, and of one distribution. They are then part of the
            randomness of each draw, and the smoothed classifier is the vote over noise and orders together. None: all
            copies are asked in the question's own order.
        view: what the certificate is about; None: the canvas.
    Returns:
        Radius is in the measure of the noise: L2 over the whole canvas in [0, 1] pixel units for normal noise. With
        probability >= 1 - alpha over the draws it does not exceed the true one: the smoothed classifier gives the
        certified class for every canvas within it.
    Raises:
        ModelOutputError: the model returned NaN or infinite scores.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918), CERTIFY. Differs: abstains at p_lower == 1/2 too, and where class K is
        chosen; a class K exists at all; a tie of the selection goes to the first class.
    """

    def counted(purpose: str, n: int) -> tuple[int, ...]:
        order = partial(orders, purpose) if orders else None
        return count_votes(vote, canvas, smoothing.kind, n, batch, partial(rng, purpose), order=order)

    votes0 = counted("select", smoothing.n0)
    if gold is not None and (wrong := read_wrong(votes0, gold)):
        return wrong
    return read_votes(votes0, counted("estimate", smoothing.n), smoothing, view or view_of(canvas))


@torch.no_grad()
def certify_gold(
    vote: Vote,
    canvas: torch.Tensor,
    ladder: Ladder,
    *,
    gold: int,
    rng: Rng,
    batch: int,
    orders: Orders | None = None,
) -> SequentialCertificate:
    """Certify that the smoothed answer around one image is gold, at the ladder's radii, with as few draws as needed.

    The draws are the first of those that `certify` uses for estimation, whatever the batch size. The rest of a batch
    after the end of the rule is not counted. See `Ladder` for the rule and `certify` for the other arguments.

    Returns:
        With probability >= 1 - alpha over the draws no certified radius exceeds the true one.
    Raises:
        ModelOutputError: the model returned NaN or infinite scores.
    """
    noise, n = ladder.spec.kind, ladder.spec.n

    def draws() -> Iterator[Draws]:
        drawn = map(partial(orders, "estimate"), count()) if orders else None
        for copies in noisy_copies(canvas, noise, n, batch, partial(rng, "estimate")):
            asked = None if drawn is None else list(islice(drawn, len(copies)))
            yield vote(copies, asked).cpu().numpy()

    return ladder.follow(draws(), gold, vote.classes)


def view_of(canvas: torch.Tensor, file: FileView | None = None) -> View:
    """What a certificate around this canvas, (3, H, W), is about: the canvas, or the file that it shows."""
    return View(height=canvas.shape[-2], width=canvas.shape[-1], file=file)


def count_votes(
    vote: Vote,
    canvas: torch.Tensor,
    noise: Noise,
    n: int,
    batch: int,
    streams: Streams,
    first: int = 0,
    order: Callable[[int], Order] | None = None,
) -> tuple[int, ...]:
    """Count the votes of n noisy copies, from `first` on, for each class 0 .. K.

    Args:
        order: maps a copy's number to the order of its options; None: the question's own.
    """
    orders = map(order, range(first, first + n)) if order else None
    return vote.count(noisy_copies(canvas, noise, n, batch, streams, first), orders)
