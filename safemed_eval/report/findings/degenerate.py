"""Whether a model has answered at all: a constant, a guess, an answer without the image. From the records alone.

Such a model can look robust: nothing moves a constant, and it is certified at the largest radius that there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase

import pandas as pd

from safemed_eval import stats
from safemed_eval.core import GRADIENT_REPEATS, REPEATS
from safemed_eval.report.findings.order import NOTABLE
from safemed_eval.report.load import LoadedRun
from safemed_eval.rounding import interval, percent

FEW = 10
"""Answers below which nothing is called constant, or blind."""
_SAME = 1e-3
"""Log-probabilities that differ by no more are equal: batches differ in the last bits."""


def degenerate(run: LoadedRun) -> list[str]:
    """Sentences on a model that may not have answered by what it saw; none where nothing speaks for that."""
    clean = run.frame if run.kind == "certify" else run.under("clean")
    answered = clean if clean.empty else clean[clean["error"].isna() & clean["prediction"].notna()]
    if run.kind == "certify" and run.sequential:
        return [*_one_letter(clean, answered), *_unsteady(run)]
    found = [] if answered.empty else [*_constant(answered), *_at_chance(run, answered), *_blind(answered)]
    return [*found, *_unsteady(run)]


def _constant(answered: pd.DataFrame) -> Iterator[str]:
    places = answered["prediction"].astype(int)
    gold = float((answered["label"] == places.iloc[0]).mean())
    if len(places) >= FEW and places.nunique() == 1 and gold <= 1 - NOTABLE:
        yield (
            f"The model answers {ascii_uppercase[places.iloc[0]]} to each of {len(places)} questions; it is gold in "
            f"{percent(gold)} %. It is a constant, which no attack moves and every certificate covers."
        )


def _one_letter(every: pd.DataFrame, certified: pd.DataFrame) -> Iterator[str]:
    """A sequential run asks for the gold answer alone: a constant is certified where its letter is gold, always."""
    others = every.drop(certified.index)
    if min(len(certified), len(others)) >= FEW and certified["label"].nunique() == 1:
        letter = int(certified["label"].iloc[0])
        if letter not in others["label"].tolist():
            name = ascii_uppercase[letter]
            yield (
                f"All {len(certified)} questions whose gold answer is {name} are certified, and none of the other "
                f"{len(others)}: as those of a constant are, which every certificate covers."
            )


def _at_chance(run: LoadedRun, answered: pd.DataFrame) -> Iterator[str]:
    """An abstention, or no answer, is no guess: the others count."""
    what = "certified answers" if run.kind == "certify" else "clean answers"
    chance = float((1 / answered["options"].map(len)).mean())
    share = stats.clustered_proportion(answered["correct"].tolist(), answered["cluster"].tolist())
    assert share.estimate is not None and share.lower is not None
    if share.lower <= chance and share.estimate < chance + NOTABLE:
        yield (
            f"Of {share.n} {what} {percent(share.estimate)} % [{interval(share.lower, share.upper)}] are right, which "
            f"cannot be told from chance, {percent(chance)} %: how robust a guess is means nothing."
        )


def _blind(answered: pd.DataFrame) -> Iterator[str]:
    """Questions that differ in nothing but the image, and their answers."""
    image = answered["image_sha256"].fillna(answered["image"])
    asked = answered.assign(options=answered["options"].map(tuple), seen=image)
    groups = [part for _, part in asked.groupby(["question", "options"], sort=False) if part["seen"].nunique() > 1]
    size = sum(map(len, groups))
    if size < FEW:
        return
    scores = [pd.DataFrame(part["log_probs"].tolist()) for part in groups if "log_probs" in part]
    if scores and all(part["log_probs"].notna().all() for part in groups):
        if max(float((table.max() - table.min()).max()) for table in scores) <= _SAME:
            yield (
                f"The image never matters: {size} questions that differ in the image alone have the same "
                "log-probabilities."
            )
        return
    telling = [part for part in groups if part["label"].nunique() > 1]
    if len(telling) >= FEW and all(part["prediction"].nunique() == 1 for part in groups):
        yield (
            f"The image never matters: {size} questions, in {len(groups)} groups that differ in the image alone, have "
            f"one answer a group, though in {len(telling)} of these the gold answers differ."
        )


def _unsteady(run: LoadedRun) -> Iterator[str]:
    """What its checks at load have found of chance in the model itself."""
    for check in run.meta.get("checks", []):
        if check["name"] in (REPEATS, GRADIENT_REPEATS) and check["status"] != "pass":
            yield f"Asked twice, the model does not say the same ({check['name']}): {check['detail']}."
