"""What certificates were made with, in words and in symbols: the noise, n0, n and alpha."""

from __future__ import annotations

from collections.abc import Sequence

from safemed_eval.smoothing import Budget, Exhaustive, Sequential


def settings(budget: Budget) -> dict[str, str]:
    """The noise with its sigma, and n0, n and alpha under their names, where this kind of sampling has them.

    `n` is a number of noisy copies; numbers of questions are called items everywhere.
    """
    if isinstance(budget, Exhaustive):
        return {"noise": budget.kind.title}
    if isinstance(budget, Sequential):
        return {"noise": budget.kind.title, "n": f"<={budget.n:,}", "alpha": f"{budget.alpha:g}"}
    return {
        "noise": budget.kind.title,
        "n0": f"{budget.n0:,}",
        "n": f"{budget.n:,}",
        "alpha": f"{budget.alpha:g}",
    }


def symbols(budget: Budget) -> list[str]:
    """The same with Greek letters, as figures show them: "s = 0.25", "n0 = 100", "n = 1,000", "a = 0.001"."""
    names = {"n0": "n\u2080", "n": "n", "alpha": "\u03b1"}
    known = settings(budget)
    noise = known.pop("noise").replace("sigma ", "\u03c3 = ")
    return [noise, *(f"{names[key]} = {value}".replace("= <=", "\u2264 ") for key, value in known.items())]


def shared(budgets: Sequence[Budget]) -> tuple[str, list[str]]:
    """What all these budgets have in common, and what each has beside it; "" where there is nothing."""
    every = [symbols(budget) for budget in budgets]
    common = [text for text in every[0] if all(text in known for known in every)]
    return ", ".join(common), [", ".join(text for text in known if text not in common) for known in every]
