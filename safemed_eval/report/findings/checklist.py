"""Whether the attacks of a run can be believed: what a reviewer asks first, answered from its records.

Source:
    Carlini et al. 2019, "On evaluating adversarial robustness" (arXiv:1902.06705); Athalye et al. 2018
    (arXiv:1802.00420) on masked gradients; the flags of AutoAttack, Croce and Hein 2020 (arXiv:2003.01690).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safemed_eval.core import PRECISION, REPEATS
from safemed_eval.faults import BROKEN_GRADIENT
from safemed_eval.report.findings.attack_pairs import Duels, in_one_ball, searches, strength, takes_more
from safemed_eval.report.findings.attack_sizes import shots
from safemed_eval.report.load import LoadedRun

Status = Literal["pass", "warn", "fail", "n/a"]
Answer = tuple[Status, str]

RISING = 0.1
"""A search that gains more than this share of its whole climb in its last quarter has not come to its end."""
DEAD = 0.05
"""Share of gradients that are zero, or not finite, above which an attack has not been made."""
MISSED = 0.05
"""Share of an attack's survivors that one without gradients may flip."""
UNDONE = 0.1
"""Share of flips that 8-bit rounding may take back."""
BLIND = 0.05
"""Share of items that may stay right whatever is done to their image."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the checklist. "n/a": nothing in the run answers it; `detail` says what would."""

    name: str
    status: Status
    detail: str


def checklist(run: LoadedRun) -> list[Check]:
    """What speaks for and against the attacks of an evaluate run; nothing where there is none."""
    if run.kind != "evaluate" or run.frame.empty:
        return []
    duels = Duels(run)
    if not any(strength(shot) != 0 for shot in shots(run)):
        return []
    answers = {name: ask(duels) for name, ask in _CHECKS.items()}
    return [Check(name=name, status=status, detail=detail) for name, (status, detail) in answers.items()]


def _stronger_is_stronger(duels: Duels) -> Answer:
    worse, compared = [], 0
    for weak, strong in duels.pairs(lambda a, b: in_one_ball(a, b) and 0 <= strength(a) < strength(b)):
        compared += 1
        if duels.beaten(strong.condition, weak.condition):
            worse.append(f"{strong.condition} leaves more right than {weak.condition}")
        elif (
            strength(weak) == 0
            and searches(strong)
            and 0 < duels.right(weak.condition) <= duels.right(strong.condition)
        ):
            worse.append(f"{strong.condition} does no more than random noise")
    if not compared:
        return "n/a", "add --attack noise and --attack fgsm, at the eps of pgd"
    return ("fail", _several(worse)) if worse else ("pass", f"pairs of attacks in one ball: {compared}")


def _more_eps_is_stronger(duels: Duels) -> Answer:
    worse, compared = [], 0
    for small, large in duels.pairs(lambda a, b: (a.family, a.norm) == (b.family, b.norm) and a.eps < b.eps):
        compared += 1
        if duels.beaten(large.condition, small.condition):
            worse.append(f"{large.condition} leaves more right than {small.condition}")
    if not compared:
        return "n/a", "add the same attack at another eps"
    return ("fail", _several(worse)) if worse else ("pass", f"pairs of one attack at two eps: {compared}")


def _everything_falls(duels: Duels) -> Answer:
    huge = [shot.condition for shot in duels.shots if shot.is_huge and searches(shot)]
    if not huge:
        return "n/a", "add --attack pgd:eps=1"
    left, name = min((duels.share(name), name) for name in huge)
    if not left:
        return "pass", f"none stays right under {name}"
    detail = f"{100 * left:.1f} % stay right under {name}: they do not hang on the image, or the attack is broken"
    return ("fail" if left > BLIND else "warn"), detail


def _steps_are_enough(duels: Duels) -> Answer:
    found = [
        f"{more.condition} flips more than {less.condition}"
        for less, more in duels.pairs(takes_more)
        if duels.beaten(less.condition, more.condition)
    ]
    gains = {}
    for name in duels.run.conditions:
        rows = duels.run.under(name)
        ways = rows.loc[rows["correct"], "climb"].dropna().tolist() if "climb" in rows else []
        rising = [(way[4] - way[3]) / (way[4] - way[0]) for way in ways if way[4] > way[0]]
        if rising:
            gains[name] = float(np.median(rising)), len(rising)
    found += [
        f"the survivors of {name} ({count}) gain {_percent(gain)} of their climb in its last quarter"
        for name, (gain, count) in gains.items()
        if gain > RISING
    ]
    if found:
        return "warn", f"{_several(found)}: take more steps"
    if not gains:
        return "n/a", "no item survived an attack of several steps, or the run is of an older version"
    gain, name = max((gain, name) for name, (gain, _) in gains.items())
    return "pass", f"survivors gain at most {_percent(gain)} of their climb in the last quarter ({name})"


def _gradients_are_there(duels: Duels) -> Answer:
    frame = duels.run.frame
    dead = frame["dead"].dropna().tolist() if "dead" in frame else []
    broken = int(frame["error"].str.startswith(BROKEN_GRADIENT).eq(True).sum())
    searches = len(dead) + broken
    if not searches:
        return "n/a", "no attack took a gradient, or the run is of an older version"
    share = (sum(dead) + broken) / searches
    detail = f"{_percent(float(np.mean(dead)) if dead else 0.0)} were zero at every pixel"
    detail += f"; {broken} of {searches} searches met one that is not finite, and failed" if broken else ""
    return ("fail" if share > DEAD else "warn" if share else "pass"), detail


def _gradients_win(duels: Duels) -> Answer:
    found: list[Answer] = []
    compared = 0
    for black, white in duels.pairs(lambda a, b: in_one_ball(a, b) and a.black_box and searches(b)):
        compared += 1
        missed, left = duels.only(white.condition, black.condition), duels.right(white.condition)
        text = f"{black.condition} flips {missed} of {left} that {white.condition} leaves"
        if duels.beaten(white.condition, black.condition):
            found.append(("fail", f"{text}, and more in all"))
        elif missed > MISSED * left:
            found.append(("warn", text))
    for name in duels.run.conditions:
        rows = duels.run.under(name)
        parts = [] if "parts" not in rows else [part for part in rows["parts"].dropna() if "square" in part]
        missed = sum(not part["square"] for part in parts)
        compared += bool(parts)
        if missed > MISSED * len(parts):
            found.append(("warn", f"Square flips {missed} of {len(parts)} that the gradients of {name} leave"))
    if not compared:
        return "n/a", "add --attack suite or --attack transfer:from=CKPT, at the eps of pgd"
    if not found:
        return "pass", f"comparisons: {compared}"
    status: Status = "fail" if any(one == "fail" for one, _ in found) else "warn"
    return status, f"{_several([text for _, text in found])}: the model's gradients mislead"


def _precision(duels: Duels) -> Answer:
    meta = duels.run.meta
    if meta["model"].get("dtype") in ("float32", "float64"):
        return "pass", f"the model computes in {meta['model']['dtype']}"
    return _at_load(duels, PRECISION) or ("n/a", "not measured: models check compares them")


def _rounding(duels: Duels) -> Answer:
    run = duels.run
    if run.spec["quantize"]:
        return "pass", "attacked images are on 8-bit grey levels"
    rows = run.frame[run.frame["rounded"].notna()] if "rounded" in run.frame else run.frame[:0]
    if rows.empty:
        return "n/a", "--quantize keeps attacked images on 8-bit grey levels"
    undone = (rows["rounded"] == rows["label"]).groupby(rows["attack"]).mean()
    name, most = str(undone.idxmax()), float(undone.max())
    detail = f"rounding takes back at most {_percent(most)} of the flips ({name})"
    return ("warn", f"{detail}: attack on grey levels, with --quantize") if most > UNDONE else ("pass", detail)


def _randomness(duels: Duels) -> Answer:
    spec = duels.run.spec
    if spec.get("smooth"):
        return "pass", f"each gradient is the mean over {spec['smooth']['m']} noisy copies"
    if (spec["asking"] or {}).get("temperature"):
        return "warn", "answers are sampled and the attack sees one sample: decode greedily, --temperature 0"
    status, detail = _at_load(duels, REPEATS) or ("n/a", "not measured: the run is of an older version")
    return status, f"the same image twice: {detail}"


def _successes(duels: Duels) -> Answer:
    right, total = duels.right("clean"), duels.run.frame["item"].nunique()
    fallen = [f"{shot.condition} {duels.only('clean', shot.condition)}" for shot in duels.shots]
    return "pass", f"of {right} right when clean fell: {'; '.join(fallen)}. The other {total - right} count for none"


def _at_load(duels: Duels, name: str) -> Answer | None:
    """What a check at the load of the model has found; None where it was not made."""
    found = (one for one in duels.run.meta.get("checks", []) if one["name"] == name)
    return next(((one["status"], one["detail"]) for one in found), None)


_CHECKS: dict[str, Callable[[Duels], Answer]] = {
    "stronger attacks are stronger": _stronger_is_stronger,
    "a larger eps is stronger": _more_eps_is_stronger,
    "a huge eps flips everything": _everything_falls,
    "more steps would not help": _steps_are_enough,
    "gradients are finite and not zero": _gradients_are_there,
    "gradients beat what sees none": _gradients_win,
    PRECISION: _precision,
    "8-bit rounding undoes nothing": _rounding,
    "randomness is averaged over": _randomness,
    "only right answers can fall": _successes,
}


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _several(texts: Sequence[str], most: int = 3) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
