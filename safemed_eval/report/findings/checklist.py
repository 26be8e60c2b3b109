"""A checklist of a run's attacks: what a reviewer asks first, answered from the records.

Source:
    Carlini et al. 2019, "On evaluating adversarial robustness" (arXiv:1902.06705); Athalye et al. 2018
    (arXiv:1802.00420) on masked gradients; the flags of AutoAttack, Croce and Hein 2020 (arXiv:2003.01690).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from safemed_eval.attacks import example_of, name_of
from safemed_eval.core import CLEAN, PLANTED, PRECISION, REPEATS
from safemed_eval.faults import BROKEN_GRADIENT
from safemed_eval.report.findings.attack_pairs import Pairs, in_one_ball, takes_more
from safemed_eval.report.findings.attack_sizes import facts_by_condition, sized_attacks
from safemed_eval.report.findings.verdict import Verdict, verdict_on
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
    """Check the attacks of an evaluate run; nothing where there is none."""
    if run.kind != "evaluate" or not run.records or all(attack.facts.strength == 0 for attack in sized_attacks(run)):
        return []
    pairs = Pairs(run)
    answers = {name: ask(pairs) for name, ask in _CHECKS.items()}
    return [Check(name=name, status=status, detail=detail) for name, (status, detail) in answers.items()]


PROOFS = ((PLANTED, "a huge eps flips everything"), ("gradients beat what sees none",))
"""What must be proved before attacks are believed: they find something that is there, and nothing finds more with
less."""


def verdict(checks: Sequence[Check]) -> Verdict | None:
    """Say whether the attacks can be believed; None where there is no checklist."""
    return verdict_on(checks, PROOFS) if checks else None


def unproved(checks: Sequence[Check]) -> list[str]:
    """Say what would give each proof that nothing in the run gives: the details of the checks that are n/a."""
    by_name = {check.name: check for check in checks}
    groups = [[by_name[name] for name in group] for group in PROOFS]
    return [group[0].detail for group in groups if all(check.status == "n/a" for check in group)]


def count_words(checks: Sequence[Check]) -> str:
    """Count the checks by status: "Of 10 checks 7 pass, 1 warn, 2 n/a"."""
    counts = Counter(check.status for check in checks)
    order: tuple[Status, ...] = ("pass", "warn", "fail", "n/a")
    return f"Of {len(checks)} checks {', '.join(f'{counts[status]} {status}' for status in order if counts[status])}"


def _stronger_is_stronger(pairs: Pairs) -> Answer:
    worse, compared = [], 0
    for weak, strong in pairs.pairs(in_one_ball):
        low, high = weak.facts.strength, strong.facts.strength
        under_weak, under_strong = (
            pairs.right(one.condition, among=other.condition) for one, other in ((weak, strong), (strong, weak))
        )
        if low is None or high is None or low >= high:
            continue
        compared += 1
        if pairs.beaten(strong.condition, weak.condition):
            worse.append(f"{strong.condition} leaves more right than {weak.condition}")
        elif low == 0 and strong.facts.climbs and 0 < under_weak <= under_strong:
            worse.append(f"{strong.condition} does no more than random noise")
    if not compared:
        weak_names = f"--attack {name_of(role='control')} and --attack {name_of(strength=1)}"
        return "n/a", f"add {weak_names}, at the eps of {name_of(strength=2)}"
    return ("fail", _several(worse)) if worse else ("pass", f"pairs of attacks in one ball: {compared}")


def _more_eps_is_stronger(pairs: Pairs) -> Answer:
    worse, compared = [], 0
    for small, large in pairs.pairs(lambda a, b: (a.family, a.norm) == (b.family, b.norm) and a.eps < b.eps):
        compared += 1
        if pairs.beaten(large.condition, small.condition):
            worse.append(f"{large.condition} leaves more right than {small.condition}")
    if not compared:
        return "n/a", "add the same attack at another eps"
    return ("fail", _several(worse)) if worse else ("pass", f"pairs of one attack at two eps: {compared}")


def _everything_falls(pairs: Pairs) -> Answer:
    huge = [attack.condition for attack in pairs.attacks if attack.is_huge and attack.facts.climbs]
    if not huge:
        return "n/a", f"add --attack {name_of(strength=2)}:eps=1"
    left, name = min((pairs.share(name), name) for name in huge)
    if not left:
        return "pass", f"none stays right under {name}"
    detail = f"{100 * left:.1f} % stay right under {name}: they do not depend on the image, or the attack is broken"
    return ("fail" if left > BLIND else "warn"), detail


def _steps_are_enough(pairs: Pairs) -> Answer:
    doubts = [
        f"{more.condition} flips more than {less.condition}"
        for less, more in pairs.pairs(takes_more)
        if pairs.beaten(less.condition, more.condition)
    ]
    gains = {}
    for name in pairs.run.conditions:
        climbs = [record.climb for record in pairs.run.answers.under(name) if record.correct and record.climb]
        rising = [(climb[4] - climb[3]) / (climb[4] - climb[0]) for climb in climbs if climb[4] > climb[0]]
        if rising:
            gains[name] = float(np.median(rising)), len(rising)
    doubts += [
        f"the survivors of {name} ({count}) gain {_percent(gain)} of their climb in its last quarter"
        for name, (gain, count) in gains.items()
        if gain > RISING
    ]
    if doubts:
        return "warn", f"{_several(doubts)}: take more steps"
    if not gains:
        return "n/a", "no item survived an attack of several steps, or the run is of an older version"
    gain, name = max((gain, name) for name, (gain, _) in gains.items())
    return "pass", f"survivors gain at most {_percent(gain)} of their climb in the last quarter ({name})"


def _gradients_are_there(pairs: Pairs) -> Answer:
    records = pairs.run.answers
    dead = [record.dead for record in records if record.dead is not None]
    broken = sum(record.error is not None and record.error.startswith(BROKEN_GRADIENT) for record in records)
    searches = len(dead) + broken
    if not searches:
        return "n/a", "no attack took a gradient, or the run is of an older version"
    share = (sum(dead) + broken) / searches
    detail = f"{_percent(float(np.mean(dead)) if dead else 0.0)} were zero at every pixel"
    detail += f"; {broken} of {searches} searches met one that is not finite, and failed" if broken else ""
    return ("fail" if share > DEAD else "warn" if share else "pass"), detail


def _gradients_win(pairs: Pairs) -> Answer:
    doubts: list[Answer] = []
    compared = 0
    for black, white in pairs.pairs(lambda a, b: in_one_ball(a, b) and a.facts.black_box and b.facts.climbs):
        compared += 1
        missed = pairs.only(white.condition, black.condition)
        left = pairs.right(white.condition, among=black.condition)
        text = f"{black.condition} flips {missed} of {left} that {white.condition} leaves"
        if pairs.beaten(white.condition, black.condition):
            doubts.append(("fail", f"{text}, and more in all"))
        elif missed > MISSED * left:
            doubts.append(("warn", text))
    for name, part, left_right in _black_box_parts(pairs.run):
        compared += 1
        missed = left_right.count(False)
        if missed > MISSED * len(left_right):
            text = f"{part.capitalize()} flips {missed} of {len(left_right)} that the gradients of {name} leave"
            doubts.append(("warn", text))
    if not compared:
        advice = f"--attack {name_of(strength=3)} or --attack {example_of(on_surrogate=True)}"
        defended = pairs.run.voting or pairs.run.meta.names.denoiser
        own = " (CKPT may be this model, which is then searched without its defence)" if defended else ""
        return "n/a", f"add {advice}, at the eps of {name_of(strength=2)}{own}"
    if not doubts:
        return "pass", f"comparisons: {compared}"
    status: Status = "fail" if any(doubt == "fail" for doubt, _ in doubts) else "warn"
    return status, f"{_several([text for _, text in doubts])}: the model's gradients mislead"


def _black_box_parts(run: LoadedRun) -> Iterator[tuple[str, str, list[bool]]]:
    """Yield each attack that has a part without gradients, that part, and whether it left right what it met."""
    for name, facts in facts_by_condition(run).items():
        part, records = facts.black_box_part, run.answers.under(name)
        met = [record.parts[part] for record in records if part and record.parts and part in record.parts]
        if part and met:
            yield name, part, met


def _planted(pairs: Pairs) -> Answer:
    """Judge attacks of many steps by it: one step may miss what is there."""
    facts = facts_by_condition(pairs.run)
    tallies = [tally for tally in pairs.run.meta.planted if tally.attack in facts and facts[tally.attack].climbs]
    if not tallies:
        return "n/a", "--planted 16 tests attacks of many steps on regions that they must find"
    worst = max((tally.status for tally in tallies), key=_ORDER.index)
    return worst, _several([str(tally) for tally in tallies])


_ORDER: tuple[Status, ...] = ("pass", "n/a", "warn", "fail")
"""From the best status to the worst."""


def _precision(pairs: Pairs) -> Answer:
    dtype = pairs.run.meta.model.get("dtype")
    if dtype in ("float32", "float64"):
        return "pass", f"the model computes in {dtype}"
    return _at_load(pairs, PRECISION) or ("n/a", "not measured: models check compares them")


def _rounding(pairs: Pairs) -> Answer:
    if pairs.run.quantized:
        return "pass", "attacked images are on 8-bit grey levels"
    undone = defaultdict[str, list[bool]](list)
    for record in pairs.run.answers:
        if record.rounded is not None:
            undone[record.attack].append(record.rounded == record.label)
    if not undone:
        return "n/a", "--quantize keeps attacked images on 8-bit grey levels"
    shares = {name: sum(undone[name]) / len(undone[name]) for name in sorted(undone)}
    name = max(shares, key=lambda name: shares[name])
    detail = f"rounding takes back at most {_percent(shares[name])} of the flips ({name})"
    return ("warn", f"{detail}: attack on grey levels, with --quantize") if shares[name] > UNDONE else ("pass", detail)


def _randomness(pairs: Pairs) -> Answer:
    if pairs.run.voting:
        return "pass", f"each gradient is the mean over {pairs.run.voting.m} noisy copies"
    asking = pairs.run.spec.asking
    if asking and asking.get("temperature"):
        return "warn", "answers are sampled and the attack sees one sample: decode greedily, --temperature 0"
    status, detail = _at_load(pairs, REPEATS) or ("n/a", "not measured: the run is of an older version")
    return status, f"the same image twice: {detail}"


def _successes(pairs: Pairs) -> Answer:
    right, total = pairs.right(CLEAN), pairs.run.answers.distinct_items
    fallen = [f"{attack.condition} {pairs.only(CLEAN, attack.condition)}" for attack in pairs.attacks]
    return "pass", f"of {right} right when clean fell: {'; '.join(fallen)}. The other {total - right} count for none"


def _at_load(pairs: Pairs, name: str) -> Answer | None:
    """The result of a check at the load of the model; None where it was not made."""
    results = (check for check in pairs.run.meta.checks if check.name == name)
    return next(((_STATUSES.get(check.status, "warn"), check.detail) for check in results), None)


_STATUSES: dict[str, Status] = {"pass": "pass", "warn": "warn", "fail": "fail", "n/a": "n/a"}

_CHECKS: dict[str, Callable[[Pairs], Answer]] = {
    "stronger attacks are stronger": _stronger_is_stronger,
    "a larger eps is stronger": _more_eps_is_stronger,
    "a huge eps flips everything": _everything_falls,
    "more steps would not help": _steps_are_enough,
    "gradients are finite and not zero": _gradients_are_there,
    "gradients beat what sees none": _gradients_win,
    PLANTED: _planted,
    PRECISION: _precision,
    "8-bit rounding undoes nothing": _rounding,
    "randomness is averaged over": _randomness,
    "only right answers can fall": _successes,
}


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.2g}'):g} %"


def _several(texts: Sequence[str], most: int = 3) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
