"""Error rates and power of the gate, and coverage of the intervals, by simulation: writes README.md beside it.

python reports/gate/make.py     # about a quarter of an hour on two cores; --runs 200 for a look

Each run of a gate row draws outcomes of a baseline and a candidate whose true drop is known, and asks the product for
its verdict (`judge`, `overall_verdict`, default rules but for the margin). Each run of a coverage row draws answers and
asks `clustered_proportion`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special

from safemed_eval.report.compare import EXIT, Rules, judge, overall_verdict
from safemed_eval.report.compare.aligned import AVERAGE_RADIUS
from safemed_eval.stats import clustered_proportion

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, Ints], Floats]
"""From the sizes of clusters to the difference, baseline less candidate, of each of their items in turn."""
SHARE, RADIUS = "share", "average radius"
SHOWN = 0.06
"""Rates above this are in bold: 5 % and one point of Monte Carlo error."""


# ------------------------------------------------------------------------------------------------- how items change


def whole(lost: float, *, of: str = "all", won: float = 0.0, others_win: float = 0.0, churn: float = 0.0) -> Draw:
    """Clusters change as a whole: those of the largest size ("large"), all others ("small"), or all."""

    def draw(rng: np.random.Generator, sizes: Ints) -> Floats:
        chosen = {"all": sizes > 0, "large": sizes == sizes.max(), "small": sizes < sizes.max()}[of]
        fate = rng.random(len(sizes))
        sign = np.where(fate < np.where(chosen, lost, 0.0), 1.0, 0.0)
        sign = np.where(fate > 1 - np.where(chosen, won, others_win), -1.0, sign)
        items = np.repeat(sign, sizes)
        noise = rng.random(len(items))
        return np.where(items != 0, items, 1.0 * (noise < churn) - 1.0 * (noise > 1 - churn))

    return draw


def only_large(drop: float) -> Callable[[Ints], Draw]:
    """Only the largest clusters lose, as a whole, and so much that the drop is this."""
    return lambda sizes: whole(drop * sizes.sum() / sizes[sizes == sizes.max()].sum(), of="large")


def correlated(drop: float, rho: float, won: float = 0.0) -> Draw:
    """Beta-binomial: items of a cluster are lost with one chance, and won with another."""

    def chances(rng: np.random.Generator, mean: float, count: int) -> Floats:
        return rng.beta(mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho, count) if mean else np.zeros(count)

    def draw(rng: np.random.Generator, sizes: Ints) -> Floats:
        lost, gained = (chances(rng, mean, len(sizes)) for mean in (drop + won, won))
        gained = np.minimum(gained, 1 - lost)
        fate = rng.random(sizes.sum())
        return 1.0 * (fate < np.repeat(lost, sizes)) - 1.0 * (fate > np.repeat(1 - gained, sizes))

    return draw


def graded(kind: str, drop: float) -> Draw:
    """Radii: clusters lose a part of the ceiling."""

    def draw(rng: np.random.Generator, sizes: Ints) -> Floats:
        c = len(sizes)
        if kind == "half of it":
            values = 0.5 * (rng.random(c) < 2 * drop)
        elif kind == "any part of it":
            values = rng.random(c) * (rng.random(c) < 2 * drop)
        elif kind == "all of it, the others jitter":
            values = 1.0 * (rng.random(c) < drop) + rng.uniform(-0.01, 0.01, c)
            values = np.clip(values, -1.0, 1.0)
        elif kind == "all of it, the others gain .1":
            values = np.where(rng.random(c) < (drop + 0.1) / 1.1, 1.0, -0.1)
        else:
            values = rng.beta(0.2, 0.2 * (1 - drop) / drop, c)
        return np.repeat(values, sizes).astype(float)

    return draw


GRADES = (
    "half of it",
    "any part of it",
    "all of it, the others jitter",
    "all of it, the others gain .1",
    "skewed parts",
)


# --------------------------------------------------------------------------------------------------------- the rows


@dataclass(frozen=True, kw_only=True)
class Row:
    """One simulated situation, and the exit code whose rate is wanted."""

    name: str
    sizes: Sequence[int] = field(repr=False)
    draw: Draw = field(repr=False)
    code: int
    margin: float = 0.05
    measure: str = SHARE
    measures: int = 1

    def rate(self, runs: int, seed: int) -> float:
        """The share of runs with this exit code. All measures are drawn alike, independently of each other."""
        rng, sizes = np.random.default_rng(seed), np.asarray(self.sizes)
        codes = np.repeat(np.arange(len(sizes)), sizes)
        names = [AVERAGE_RADIUS] if self.measure == RADIUS else [f"attack {i}" for i in range(self.measures)]
        everything = {"all": np.ones(len(codes), dtype=bool)}
        rules = Rules(margin=self.margin, min_drop=min(0.02, self.margin))
        hits = 0
        for _ in range(runs):
            changes = [self.draw(rng, sizes) for _ in names]
            pairs = {name: (np.maximum(one, 0), np.maximum(-one, 0)) for name, one in zip(names, changes, strict=True)}
            verdict = overall_verdict(judge(pairs, codes, rules, slices=everything), rules, same_weights=False)
            hits += EXIT[verdict] == self.code
        return hits / runs


def of(*parts: tuple[int, int]) -> list[int]:
    """Sizes of clusters: (how many, of how many items each)."""
    return [size for count, size in parts for _ in range(count)]


WINS = ((6, 20, 300, 0.125, 0.05), (10, 20, 400, 0.1, 0.05))
"""Large clusters, their items, single items; the chances that a large one is won and a single one is lost: net 0."""


def passes() -> Iterator[Row]:
    """A true drop equal to the margin: how often does it pass?"""
    for n in (20, 30, 53, 60, 87, 100, 300):
        yield Row(name=f"{n} independent", sizes=of((n, 1)), draw=whole(0.05), code=0)
    for count, size in ((20, 5), (60, 5), (40, 20), (100, 10), (87, 2)):
        yield Row(name=f"{count} x {size}, whole", sizes=of((count, size)), draw=whole(0.05), code=0)
    yield Row(name="50 x 40, whole, churn .005", sizes=of((50, 40)), draw=whole(0.05, churn=0.005), code=0)
    yield Row(name="60 x 5, whole, churn .02", sizes=of((60, 5)), draw=whole(0.05, churn=0.02), code=0)
    mixed = {
        "8 x 20 + 392 x 1": of((8, 20), (392, 1)),
        "15 x 40 + 600 x 1": of((15, 40), (600, 1)),
        "10 x 20 + 30 x 5 + 200 x 1": of((10, 20), (30, 5), (200, 1)),
        "1 x 30 + 500 x 1": of((1, 30), (500, 1)),
        "100 x 5 + 500 x 1": of((100, 5), (500, 1)),
        "200 x 3 + 600 x 1": of((200, 3), (600, 1)),
    }
    for name, sizes in mixed.items():
        yield Row(name=f"{name}, only large lose", sizes=sizes, draw=only_large(0.05)(np.asarray(sizes)), code=0)
        yield Row(name=f"{name}, all lose", sizes=sizes, draw=whole(0.05), code=0)
    for count, size in ((2, 100), (3, 50), (6, 20)):
        yield Row(name=f"{count} x {size}, whole", sizes=of((count, size)), draw=whole(0.05), code=0)
    for rho in (0.1, 0.8):
        for won in (0.0, 0.02):
            yield Row(
                name=f"60 x 5, lost{' and won' if won else ''} with correlation {rho}",
                sizes=of((60, 5)),
                draw=correlated(0.05, rho, won),
                code=0,
            )
    yield Row(name="400 independent, .10 lost, .05 won", sizes=of((400, 1)), draw=whole(0.10, won=0.05), code=0)
    for margin, n in ((0.02, 150), (0.02, 300), (0.1, 30), (0.1, 43), (0.1, 87)):
        yield Row(
            name=f"{n} independent, margin {100 * margin:g} points",
            sizes=of((n, 1)),
            draw=whole(margin),
            code=0,
            margin=margin,
        )
        yield Row(
            name=f"{n} x 4, whole, margin {100 * margin:g} points",
            sizes=of((n, 4)),
            draw=whole(margin),
            code=0,
            margin=margin,
        )
    for name, sizes in ({"60 x 1": of((60, 1)), "60 x 5": of((60, 5)), "20 x 5": of((20, 5))} | mixed).items():
        yield Row(name=f"{name}, the whole ceiling", sizes=sizes, draw=whole(0.05), code=0, measure=RADIUS)
    for name in ("8 x 20 + 392 x 1", "15 x 40 + 600 x 1"):
        draw = only_large(0.05)(np.asarray(mixed[name]))
        yield Row(name=f"{name}, the whole ceiling of large", sizes=mixed[name], draw=draw, code=0, measure=RADIUS)
    for kind in GRADES:
        for name, sizes in (
            ("53 x 1", of((53, 1))),
            ("100 x 3", of((100, 3))),
            ("15 x 10 + 150", of((15, 10), (150, 1))),
        ):
            yield Row(name=f"{name}, {kind}", sizes=sizes, draw=graded(kind, 0.05), code=0, measure=RADIUS)


def alarms() -> Iterator[Row]:
    """A true drop of 0: how often is it called a regression?"""
    for measure in (SHARE, RADIUS):
        for large, size, single, win, lose in WINS:
            yield Row(
                name=f"{large} x {size} win at {win:g}, {single} x 1 lose at {lose:g}",
                sizes=of((large, size), (single, 1)),
                draw=_against(win, lose),
                code=1,
                measure=measure,
            )
        yield Row(
            name="3 x 20 win at .2, 60 x 1 lose at .2",
            sizes=of((3, 20), (60, 1)),
            draw=_against(0.2, 0.2),
            code=1,
            measure=measure,
        )
        yield Row(
            name="1 x 60 wins at .3, 300 x 1 lose at .06",
            sizes=of((1, 60), (300, 1)),
            draw=_against(0.3, 0.06),
            code=1,
            measure=measure,
        )
        yield Row(
            name="40 x 5 win at .1, 200 x 1 lose at .1",
            sizes=of((40, 5), (200, 1)),
            draw=_against(0.1, 0.1),
            code=1,
            measure=measure,
        )
        yield Row(
            name="100 x 4, whole, .1 each way", sizes=of((100, 4)), draw=whole(0.1, won=0.1), code=1, measure=measure
        )
    for count, size in ((2, 50), (3, 50), (6, 20)):
        yield Row(
            name=f"{count} x {size}, whole, .3 each way", sizes=of((count, size)), draw=whole(0.3, won=0.3), code=1
        )
    yield Row(
        name="10 x 20 win at .1, 400 x 1 lose at .05, three attacks",
        sizes=of((10, 20), (400, 1)),
        draw=_against(0.1, 0.05),
        code=1,
        measures=3,
    )
    yield Row(
        name="400 independent, .05 each way, three attacks",
        sizes=of((400, 1)),
        draw=whole(0.05, won=0.05),
        code=1,
        measures=3,
    )
    yield Row(
        name="100 x 4, correlation .5, .05 each way, three attacks",
        sizes=of((100, 4)),
        draw=correlated(0.0, 0.5, 0.05),
        code=1,
        measures=3,
    )


def _against(win: float, lose: float) -> Draw:
    """Large clusters are won, single items lost."""
    return whole(lose, of="small", others_win=win)


def powers() -> Iterator[Row]:
    """What should pass, or be caught."""
    for n in (100, 200, 400):
        yield Row(
            name=f"{n} independent, no drop, .05 churn each way", sizes=of((n, 1)), draw=whole(0.05, won=0.05), code=0
        )
    for count, size in ((100, 4), (60, 5), (100, 10)):
        yield Row(
            name=f"{count} x {size}, no drop, .02 churn each way",
            sizes=of((count, size)),
            draw=whole(0.0, churn=0.02),
            code=0,
        )
    for n in (59, 200):
        yield Row(name=f"{n} independent, nothing changes", sizes=of((n, 1)), draw=whole(0.0), code=0)
    for n in (200, 400):
        yield Row(
            name=f"{n} independent, drop .10, .05 churn each way", sizes=of((n, 1)), draw=whole(0.15, won=0.05), code=1
        )
    yield Row(name="100 x 4, whole, drop .15", sizes=of((100, 4)), draw=whole(0.15), code=1)
    yield Row(name="100 x 4, whole, drop .15", sizes=of((100, 4)), draw=whole(0.15), code=1, measure=RADIUS)


# --------------------------------------------------------------------------------------------------------- coverage


SHAPES = {
    "20 x 5": of((20, 5)),
    "12 x 10": of((12, 10)),
    "40 x 3": of((40, 3)),
    "40 x 20": of((40, 20)),
    "10 x 20 + 200 x 1": of((10, 20), (200, 1)),
    "15 x 40 + 300 x 1": of((15, 40), (300, 1)),
    "60 x 2": of((60, 2)),
    "5 x 40 + 100 x 1": of((5, 40), (100, 1)),
    "30 x 8": of((30, 8)),
    "8 x 25": of((8, 25)),
    "100 x 4": of((100, 4)),
    "3 x 100 + 300 x 1": of((3, 100), (300, 1)),
    "20 x 40 + 600 x 1": of((20, 40), (600, 1)),
    "25 x 3 + 5 x 12 + 40 x 1": of((25, 3), (5, 12), (40, 1)),
}
SHARES = (0.5, 0.85, 0.97)
CORRELATIONS = (0.0, 0.3, 0.95)
MIXED = "mixed"
"""Half of the wrong answers are whole clusters, the others are anywhere."""
KINDS: tuple[float | str, ...] = (*CORRELATIONS, MIXED)


def answers(rng: np.random.Generator, sizes: Ints, p: float, rho: float | str) -> npt.NDArray[np.bool_]:
    """Right or not, item by item, p of them in expectation."""
    if rho == MIXED:
        gone = (1 - p) / 2
        chance = np.where(rng.random(len(sizes)) < gone, 0.0, p / (1 - gone))
    elif rho == 0.0:
        chance = np.full(len(sizes), p)
    else:
        spread = (1 - float(rho)) / float(rho)
        chance = rng.beta(p * spread, (1 - p) * spread, len(sizes))
    return rng.random(sizes.sum()) < np.repeat(chance, sizes)


def covered(sizes: Sequence[int], p: float, rho: float | str, runs: int, seed: int) -> list[float]:
    """Coverage and mean width of the interval as it is, and as it was before."""
    rng, counts = np.random.default_rng(seed), np.asarray(sizes)
    codes = np.repeat(np.arange(len(counts)), counts)
    ends = np.empty((runs, 2, 2))
    for run in range(runs):
        right = answers(rng, counts, p, rho)
        share = clustered_proportion(right, codes)
        ends[run] = (share.lower, share.upper), before(right, codes)
    inside = (ends[..., 0] <= p) & (p <= ends[..., 1])
    return [*inside.mean(0), *(ends[..., 1] - ends[..., 0]).mean(0)]


def before(right: npt.NDArray[np.bool_], codes: Ints) -> tuple[float, float]:
    """The interval as it was: Korn and Graubard's, without a further cluster."""
    n, c, p, sizes = len(right), int(codes.max()) + 1, float(right.mean()), np.bincount(codes)
    n_eff = effective = n**2 / float((sizes**2).sum())
    if 0 < p < 1:
        variance = c / (c - 1) * float((np.bincount(codes, weights=right - p) ** 2).sum()) / n**2
        shrink = special.stdtrit(n - 1, 0.025) / special.stdtrit(max(1.0, effective - 1), 0.025)
        n_eff = min(n, p * (1 - p) / (n - 1) / variance * n * shrink**2) if variance else n
    k, missed = p * n_eff, (1 - p) * n_eff
    lower = special.betaincinv(k, missed + 1, 0.025) if k else 0.0
    return float(lower), float(special.betaincinv(k + 1, missed, 0.975)) if missed else 1.0


# ------------------------------------------------------------------------------------------------------- the tables


PARTS = {"passes": passes, "alarms": alarms, "powers": powers}
COVERED = {(name, p): sizes for name, sizes in (SHAPES | {"independent, 100": of((100, 1))}).items() for p in SHARES}


def gate_line(part: str, number: int, runs: int) -> str:
    row = [*PARTS[part]()][number]
    rate = row.rate(runs, number)
    shown = f"**{100 * rate:.1f} %**" if part != "powers" and rate > SHOWN else f"{100 * rate:.1f} %"
    return f"| {row.name} | {row.measure} | {row.code} | {shown} |"


def coverage_line(name: str, p: float, runs: int) -> str:
    sizes = COVERED[name, p]
    cells = [""] * (2 * len(KINDS))
    for number, kind in enumerate(KINDS if max(sizes) > 1 else KINDS[:1]):
        hit, hit_before, width, width_before = covered(sizes, p, kind, runs, number)
        cells[2 * number] = f"{100 * hit:.1f} ({100 * width:.1f})"
        cells[2 * number + 1] = f"{100 * hit_before:.1f} ({100 * width_before:.1f})"
    return f"| {name} | {p:g} | " + " | ".join(cells) + " |"


TEXT = """# How often the gate is wrong, and how often an interval is

Made by `python reports/gate/make.py`, {runs:,} runs a row: of a rate near 5 % two standard errors are {error:.1f}
points. "20 x 5" is 20 patients or images of 5 questions each. Level 5 %, margin 5 points where nothing else is said,
`--min-drop` 2.

## A drop of exactly the margin that passes (exit code 0): at most 5 %

{passes}

## No drop, called a regression (exit code 1): at most 5 %

Large clusters win what single items lose, or both ways alike.

{alarms}

## What passes, and what is caught

{powers}

## 95 % intervals of a share: coverage in %, in brackets the mean width in points

Answers of a cluster are beta-binomial with the correlation in the head of the column; "mixed": half of the wrong
answers are whole clusters, the others anywhere. "Before" is the interval as it was, without a further cluster. Marks
play no part: all intervals count.

{coverage}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("README.md"))
    asked = parser.parse_args()
    heads = dict.fromkeys(
        PARTS, "| clusters and what happens to them | measure | exit code | rate |\n|---|---|---|---|"
    )
    heads["coverage"] = "| clusters | share | " + " | ".join(f"{kind}: now | before" for kind in KINDS) + " |\n"
    heads["coverage"] += "|---|---|" + "---|" * (2 * len(KINDS))
    with ProcessPoolExecutor(asked.workers) as pool:
        waiting = {
            part: [pool.submit(gate_line, part, number, asked.runs) for number in range(len([*rows()]))]
            for part, rows in PARTS.items()
        }
        waiting["coverage"] = [pool.submit(coverage_line, *key, asked.runs) for key in COVERED]
        tables = {part: "\n".join([heads[part], *(line.result() for line in lines)]) for part, lines in waiting.items()}
    asked.out.write_text(
        TEXT.format(runs=asked.runs, error=200 * np.sqrt(0.05 * 0.95 / asked.runs), **tables), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
