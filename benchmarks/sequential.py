"""Sequential and fixed certificates compared on the same votes: `python benchmarks/sequential.py VOTES.npz`.

100 + 2,048 votes of 40 questions of phantom (one for each modality and question type), both shipped checkpoints, sigma
0.25 and 0.1. They take some minutes to draw and are stored in VOTES.npz, so that a second run takes a minute. The fixed
procedure then reads all votes, the sequential ones, of one and of two classes, read them until their rules stop. All
decide if the gold answer is certified at each radius, at alpha 0.001. A second table is of simulated votes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import logging

from safemed_eval import data as datasets
from safemed_eval import grammar
from safemed_eval.core import Item
from safemed_eval.data import canvas_of
from safemed_eval.models import load, resolve
from safemed_eval.models.waist import Waist
from safemed_eval.rounding import percent_down
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Gaussian, Ladder, Sequential, Smoothing, read_votes
from safemed_eval.smoothing.copies import noisy_copies

MODELS, SIGMAS = ("builtin:sft", "builtin:at-grpo"), (0.25, 0.1)
N0, N, ALPHA = 100, 2048, 0.001
ASKED = ("1s", "2s", "1s,2s", grammar.RADII)
BATCH = 64

Votes = npt.NDArray[np.int8]
"""(items, N0 + N) class ids: selection votes, then estimation votes, in the order of drawing."""


def questions() -> tuple[datasets.DataSet, datasets.Canvas]:
    loaded = datasets.load("phantom", None)
    chosen = datasets.select(loaded, seed=0, per_group=1, limit=None, modalities=(), question_types=())
    return datasets.verify(chosen), datasets.parse_canvas(None, "stretch", loaded.canvas)


@torch.no_grad()
def draw(model: Waist, sigma: float) -> Votes:
    """Draw the votes that `certify` counts, with the same noise."""
    chosen, canvas = questions()
    rows = []
    for item in chosen.items:
        vote, image = model.vote(item.question), canvas_of(item, canvas).to(model.device)
        votes = []
        for purpose, count in (("select", N0), ("estimate", N)):
            streams = partial(generator, model.device, 0, "certify", item.id, purpose)
            votes += [vote(copies).cpu() for copies in noisy_copies(image, Gaussian(sigma), count, BATCH, streams)]
        rows.append(torch.cat(votes).numpy().astype(np.int8))
    return np.stack(rows)


def votes_of(cache: Path) -> dict[str, Votes]:
    """Return the votes by model and sigma; those that the cache lacks are drawn."""
    known: dict[str, Votes] = dict(np.load(cache)) if cache.exists() else {}
    for name in MODELS:
        model = None
        for sigma in SIGMAS:
            key = f"{name} {sigma}"
            if key not in known:
                model = model or load(resolve(name))
                known[key] = draw(model, sigma)
                np.savez(cache, **known)
    return known


TESTS: tuple[Literal["two classes"] | None, ...] = (None, "two classes")


def replayed(votes: Votes, items: list[Item], sigma: float, asked: str) -> Iterator[list[float]]:
    """Yield for each item the largest radius that the fixed procedure certifies for gold, or -1.

    Then draws and the same radius of the one-class test, and of the two-class test.
    """
    radii = grammar.radii(asked, sigma)
    ladders = [Ladder(Sequential(sigma=sigma, radii=radii, n=N, alpha=ALPHA, test=test)) for test in TESTS]
    smoothing = Smoothing(sigma=sigma, n=N)
    for row, item in zip(votes, items, strict=True):
        gold, classes = item.label, len(item.question.options) + 1
        votes0, rest = (tuple(np.bincount(part, minlength=classes).tolist()) for part in (row[:N0], row[N0:]))
        fixed = read_votes(votes0, rest, smoothing)
        proved = fixed.radius if fixed.prediction == gold and fixed.radius is not None else -1.0
        values = [max((radius for radius in radii.values() if radius <= proved), default=-1.0)]
        for ladder in ladders:
            found = ladder.follow(np.split(row[N0:], range(BATCH, N, BATCH)), gold, classes)
            values += [found.stopped_at, -1.0 if found.radius is None else found.radius]
        yield values


SPREAD = (
    ((0.55, 0.20, 0.15, 0.10), "0.25s"),
    ((0.75, 0.15, 0.06, 0.04), "0.5s"),
    ((0.90, 0.05, 0.03, 0.02), "1s"),
    ((1.0, 0.0, 0.0, 0.0), "1s"),
)
RUNS = 300


def simulated() -> None:
    """Print the mean draws, and the share that is certified, for simulated votes that are spread over classes."""
    print(f"\n{RUNS} simulated items each, four options, the first is gold; at most {N} draws, alpha {ALPHA:g}")
    print("| probabilities | radius | one class: mean draws | certified % | two classes: mean draws | certified % |")
    print("|---|---|---|---|---|---|")
    for p, asked in SPREAD:
        draws = np.random.default_rng(0).choice(len(p), (RUNS, N), p=p)
        cells = []
        for test in TESTS:
            radii = grammar.radii(asked, 1.0)
            ladder = Ladder(Sequential(sigma=1.0, radii=radii, n=N, alpha=ALPHA, test=test))
            made = [ladder.follow(np.split(row, range(BATCH, N, BATCH)), 0, len(p) + 1) for row in draws]
            cells.append(f"{np.mean([one.stopped_at for one in made]):.0f}")
            cells.append(percent_down(float(np.mean([one.radius is not None for one in made]))))
        print(f"| {', '.join(f'{share:g}' for share in p)} | {asked} | {' | '.join(cells)} |")


def main() -> None:
    logging.disable_progress_bar()
    votes = votes_of(Path(sys.argv[1]))
    items = list(questions()[0].items)
    print(f"{len(items)} items, n = {N} against at most {N}, alpha {ALPHA:g}; fixed draws {N0} more to select")
    print(
        "| model, sigma | radii | certified %, fixed | one class | two classes | lost | won | mean draws, one class | "
        "two classes | 2,048 / mean |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    pooled: dict[str, list[npt.NDArray[np.float64]]] = {asked: [] for asked in ASKED}
    for name in MODELS:
        for sigma in SIGMAS:
            for asked in ASKED:
                rows = np.array(list(replayed(votes[f"{name} {sigma}"], items, sigma, asked)))
                rows[:, [0, 2, 4]] /= sigma
                pooled[asked].append(rows)
                show(f"{name}, {sigma}", asked, rows)
    for asked in ASKED:
        show("all", asked, np.concatenate(pooled[asked]))
    simulated()


def show(what: str, asked: str, rows: npt.NDArray[np.float64]) -> None:
    """Print a row of the table; radii are in multiples of sigma. Lost and won: two classes against one."""
    fixed, before, one, draws, two = rows.T
    radii = grammar.radii(asked, 1.0).values()
    shares = [
        " / ".join(percent_down(float((proved >= radius - 1e-9).mean())) for radius in radii)
        for proved in (fixed, one, two)
    ]
    print(
        f"| {what} | {asked} | {' | '.join(shares)} | {(two < one - 1e-9).sum()} | {(two > one + 1e-9).sum()} | "
        f"{before.mean():.0f} | {draws.mean():.0f} | {N / draws.mean():.1f} |"
    )


if __name__ == "__main__":
    main()
