"""Sequential and fixed certificates compared on the same votes: `python benchmarks/sequential.py VOTES.npz`.

100 + 2,048 votes of 40 questions of phantom (one for each modality and question type), both shipped checkpoints, sigma
0.25 and 0.1. They take some minutes to draw and are stored in VOTES.npz, so that a second run takes seconds. The fixed
procedure then reads all votes, the sequential one reads them until its rule stops. Both decide if the gold answer is
certified at each radius, at alpha 0.001.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

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


def replayed(votes: Votes, items: list[Item], sigma: float, asked: str) -> Iterator[tuple[int, float, float]]:
    """Yield each item's draws, and the largest radius that each procedure certifies for gold, or -1."""
    radii = grammar.radii(asked, sigma)
    ladder, smoothing = Ladder(Sequential(sigma=sigma, radii=radii, n=N, alpha=ALPHA)), Smoothing(sigma=sigma, n=N)
    for row, item in zip(votes, items, strict=True):
        gold, classes = item.label, len(item.question.options) + 1
        votes0, rest = (tuple(np.bincount(part, minlength=classes).tolist()) for part in (row[:N0], row[N0:]))
        fixed, sequential = read_votes(votes0, rest, smoothing), ladder.follow(np.split(row[N0:], N // BATCH), gold, classes)
        proved = fixed.radius if fixed.prediction == gold and fixed.radius is not None else -1.0
        largest = max((radius for radius in radii.values() if radius <= proved), default=-1.0)
        yield sequential.stopped_at, -1.0 if sequential.radius is None else sequential.radius, largest


def main() -> None:
    logging.disable_progress_bar()
    votes = votes_of(Path(sys.argv[1]))
    items = list(questions()[0].items)
    print(f"{len(items)} items, n = {N} against at most {N}, alpha {ALPHA:g}; fixed draws {N0} more to select")
    print(
        "| model, sigma | radii | certified %, fixed | sequential | lost | won | mean draws | median | 2,048 / mean |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    pooled: dict[str, list[npt.NDArray[np.float64]]] = {asked: [] for asked in ASKED}
    for name in MODELS:
        for sigma in SIGMAS:
            for asked in ASKED:
                rows = np.array(list(replayed(votes[f"{name} {sigma}"], items, sigma, asked)))
                rows[:, 1:] /= sigma
                pooled[asked].append(rows)
                show(f"{name}, {sigma}", asked, rows)
    for asked in ASKED:
        show("all", asked, np.concatenate(pooled[asked]))


def show(what: str, asked: str, rows: npt.NDArray[np.float64]) -> None:
    """Print a row of the table; radii are in multiples of sigma."""
    draws, ours, fixed = rows.T
    radii = grammar.radii(asked, 1.0).values()
    shares = [
        " / ".join(percent_down(float((proved >= radius - 1e-9).mean())) for radius in radii)
        for proved in (fixed, ours)
    ]
    print(
        f"| {what} | {asked} | {shares[0]} | {shares[1]} | {(ours < fixed).sum()} | {(ours > fixed).sum()} | "
        f"{draws.mean():.0f} | {np.median(draws):.0f} | {N / draws.mean():.1f} |"
    )


if __name__ == "__main__":
    main()
