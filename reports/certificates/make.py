"""How often certificates of each kind are false, where the truth is known: writes README.md beside it.

    python reports/certificates/make.py            # a quarter of an hour on two cores
    python reports/certificates/make.py --count 200   # for a look

Each row makes certificates with the product's own noise and rule for toys whose true radius is known in closed form
(see truths.py), at an alpha so large that a rule that is false too often shows it: 10,000 certificates a kind, half of
them fixed and half sequential, a fifth at each of five probabilities.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import patches
import torch
import truths
from scipy import stats as sps

from safemed_eval import stats
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Ladder, Sequential, Smoothing
from safemed_eval.smoothing.certify import certify, certify_gold, count_votes, view_of

ALPHA, N0, N, CAP = 0.05, 5, 100, 400
CHANCES = (0.6, 0.75, 0.9, 0.97, 0.995)
"""True probabilities of the certified class."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The certificates of one kind: how many were attempted, made and false, and how many of these are expected."""

    kind: str
    attempted: int
    certified: int
    false: int
    expected: float | None
    copies: float

    @property
    def bound(self) -> float:
        """Upper 99.9 % bound of the rate of false certificates."""
        return stats.clopper_pearson_upper(self.false, self.attempted, 0.001)


def fixed(name: str, count: int) -> Row:
    budget = Smoothing(noise=name, sigma=truths.SIGMA[name], n0=N0, n=N, alpha=ALPHA)
    certified = false = 0
    expected = 0.0
    for p in CHANCES:
        toy = truths.truth(name, p)
        vote = toy.model.vote(truths.QUESTION)
        for number in range(count // len(CHANCES)):
            rng = partial(generator, "cpu", "fixed", name, str(p), number)
            made = certify(vote, toy.canvas, budget, rng=rng, batch=N)
            certified += made.radius is not None
            truth = toy.radius if made.prediction == 0 else 0.0
            false += made.radius is not None and made.radius > truth
        expected += count // len(CHANCES) * _rate(budget, p, toy.radius)
    return Row(
        kind=f"{name}, fixed",
        attempted=count // len(CHANCES) * len(CHANCES),
        certified=certified,
        false=false,
        expected=expected,
        copies=N0 + N,
    )


def _rate(budget: Smoothing, p: float, radius: float) -> float:
    """The exact probability of a false certificate for a class of probability p, its selection apart."""
    counts = np.arange(budget.n + 1)
    radii = [budget.kind.radius(float(sps.beta.ppf(budget.alpha, k, budget.n - k + 1))) if k else None for k in counts]
    too_large = [made is not None and made > radius for made in radii]
    return float(sps.binom.pmf(counts[too_large], budget.n, p).sum())


def sequential(name: str, count: int) -> Row:
    """Ask for exactly the true radius, at which a certificate is false, and for half of it."""
    certified = false = copies = 0
    for p in CHANCES:
        toy = truths.truth(name, p)
        asked = {"half": toy.radius / 2, "all": toy.radius}
        ladder = Ladder(
            Sequential(noise=name, sigma=truths.SIGMA[name], radii=asked, n=CAP, alpha=ALPHA), view_of(toy.canvas)
        )
        vote = toy.model.vote(truths.QUESTION)
        for number in range(count // len(CHANCES)):
            rng = partial(generator, "cpu", "sequential", name, str(p), number)
            made = certify_gold(vote, toy.canvas, ladder, gold=0, rng=rng, batch=64)
            certified += made.radius is not None
            false += made.certified["all"]
            copies += made.stopped_at
    total = count // len(CHANCES) * len(CHANCES)
    return Row(
        kind=f"{name}, sequential",
        attempted=total,
        certified=certified,
        false=false,
        expected=None,
        copies=copies / total,
    )


def low_bits(name: str, count: int) -> Row:
    """Certify black for a model that reads low bits, and count certificates that two grey levels refute."""
    budget = Smoothing(noise=name, sigma=0.25, n0=N0, n=N, alpha=ALPHA)
    black = torch.zeros(3, 16, 16)
    grey = torch.full_like(black, 2 / 255)
    vote = Waist(truths.LowBits(), torch.device("cpu")).vote(truths.QUESTION)
    distance = float((grey - black).double().norm())
    there = count_votes(vote, grey, budget.kind, 2000, 100, partial(generator, "cpu", "there", name))[0]
    a_wins = stats.clopper_pearson_upper(there, 2000, 1e-6) > 0.5
    certified = false = 0
    for number in range(count):
        made = certify(vote, black, budget, rng=partial(generator, "cpu", "bits", name, number), batch=N)
        certified += made.radius is not None
        false += made.radius is not None and made.prediction == 0 and made.radius > distance and not a_wins
    return Row(
        kind=f"{name}, a model that reads low bits",
        attempted=count,
        certified=certified,
        false=false,
        expected=None,
        copies=N0 + N,
    )


def about_files(before: int, after: int, count: int) -> Row:
    """Certify radii of files of `before` columns on canvases of `after`."""
    budget = Smoothing(sigma=truths.SIGMA["gaussian"], n0=N0, n=N, alpha=ALPHA)
    certified = false = 0
    for p in CHANCES:
        toy = truths.file_truth(p, before, after)
        vote = toy.model.vote(truths.QUESTION)
        for number in range(count // len(CHANCES)):
            rng = partial(generator, "cpu", "file", before, str(p), number)
            made = certify(vote, toy.canvas, budget, rng=rng, batch=N, view=toy.view)
            certified += made.radius is not None
            false += made.radius is not None and made.radius > (toy.radius if made.prediction == 0 else 0.0)
    return Row(
        kind=f"gaussian, --domain file, {before} columns to {after}",
        attempted=count // len(CHANCES) * len(CHANCES),
        certified=certified,
        false=false,
        expected=None,
        copies=N0 + N,
    )


def against_patches(count: int) -> Row:
    """Hold each certificate against every content of every patch; see patches.py."""
    found = patches.enumerated(count)
    return Row(
        kind=f"patch, every patch tried ({found.tight:,} fall to one of a pixel more)",
        attempted=found.attempted,
        certified=found.certified,
        false=found.false,
        expected=0,
        copies=patches.WIDTH,
    )


def rows(count: int) -> Iterator[Row]:
    """Make the rows, several at a time."""
    tasks: list[Callable[[], Row]] = [partial(against_patches, 2 * count)]
    tasks += [partial(about_files, before, after, count) for before, after in ((3, 6), (6, 3))]
    tasks += [partial(low_bits, name, count // 50) for name in ("gaussian", "float32")]
    tasks += [partial(make, name, count) for name in truths.SIGMA for make in (fixed, sequential)]
    with ProcessPoolExecutor() as pool:
        yield from pool.map(_made, tasks)


def _made(task: Callable[[], Row]) -> Row:
    began = time.perf_counter()
    row = task()
    print(f"{row.kind}: {row.false} of {row.attempted} false, {time.perf_counter() - began:.0f} s", flush=True)
    return row


def page(made: list[Row]) -> str:
    lines = [
        "# How often certificates are false, and what each kind certifies of the shipped models",
        "",
        "Made by `make -C reports/certificates`. `tests/test_noise.py` has a fast part.",
        "",
        "## False certificates where the truth is known",
        "",
        "Toys whose true radius is known in closed form (`truths.py`), the product's own noise and rules, alpha",
        f"{ALPHA:g}: n0 {N0} and n {N} copies for fixed certificates, {CAP} at most for sequential ones, which are",
        "asked for exactly the true radius. A false one is larger than the truth. Expected is the exact sum over the",
        "binomial distribution, which stays below alpha because counts are whole. The rate is bounded with 99.9 %",
        "confidence. Certificates against patches leave nothing to chance: all are held against every patch. A model",
        "that reads low bits is why noise lies on a lattice: under float32 noise all of its certificates are false.",
        "",
        "| kind | certificates attempted | made | false | expected | rate, at most | copies each |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in made:
        expected = "n/a" if row.expected is None else f"{row.expected:.0f}"
        lines.append(
            f"| {row.kind} | {row.attempted:,} | {row.certified:,} | {row.false:,} | {expected} | "
            f"{100 * row.bound:.2f} % | {row.copies:.0f} |"
        )
    lines += ["", _REST]
    return "\n".join(lines)


_REST = """## The shipped models under every kind

`report/` has the curves: `certified-*.png`, one figure for each kind of radius, `tables/certified.md` the numbers.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000, help="certificates of each row; a kind has two rows")
    count = parser.parse_args().count
    made = list(rows(count))
    (Path(__file__).parent / "README.md").write_text(page(made), encoding="utf-8")


if __name__ == "__main__":
    main()
