"""What attacks on certificates have found: which of them cannot be true, and whether chance explains that."""

from __future__ import annotations

import math
from collections.abc import Iterator

from safemed_eval import stats
from safemed_eval.report.load import Json, LoadedRun
from safemed_eval.smoothing import Falsification

DELTA = 0.001
"""Probability that a sound tool is called unsound."""


def falsified_of(run: LoadedRun) -> Json | None:
    """The outcome of `certify --falsify`; None for a run without it.

    Returns:
        "certificates" that were attacked; "refuted", one entry for each count that contradicts its certificate;
        "items", how many have one; "allowed", which number of items chance exceeds with probability DELTA at most;
        "sound", whether they are no more; "at_ceiling", how many of the certificates have the largest radius that the
        budget could give, and "remark", what their survival does not show, None where there are none.
    """
    if not run.spec.get("falsify"):
        return None
    spec = Falsification(**run.spec["falsify"])
    radii = [] if run.frame.empty else run.frame[run.frame["falsified"].notna()]["radius"].tolist()
    ceiling = run.smoothing.ceiling
    assert ceiling is not None
    highest = sum(radius > ceiling or math.isclose(radius, ceiling, rel_tol=1e-9) for radius in radii)
    refuted = [] if run.frame.empty else list(_refuted(run, spec))
    items = len({one["item"] for one in refuted})
    chance = min(1.0, run.smoothing.alpha + len(spec.shares) * spec.alpha)
    allowed = stats.false_certificates_at_most(len(run.frame), chance, DELTA) if len(run.frame) else 0
    return {
        "certificates": len(radii),
        "refuted": refuted,
        "items": items,
        "allowed": allowed,
        "sound": items <= allowed,
        "at_ceiling": highest,
        "remark": _remark(highest, len(radii)),
    }


def _remark(highest: int, attacked: int) -> str | None:
    """A class whose true radius is at least the certified one keeps, at every distance, the probability that the
    certificate claims there: nothing within the radius refutes it, however the radius was computed."""
    if not highest:
        return None
    which = f"All {attacked:,}" if highest == attacked else f"{highest:,} of the {attacked:,}"
    some = "some" if highest == attacked else "more"
    return (
        f"{which} certificates stand at the ceiling: the budget, not the model, set their radius, and where the "
        "model's own is larger no search within the certified one can prove it false, so that their survival does not "
        f"show that radii are computed rightly. A larger n, or sigma, brings {some} below the ceiling."
    )


def _refuted(run: LoadedRun, spec: Falsification) -> Iterator[Json]:
    for record in run.frame[run.frame["falsified"].notna()].to_dict("records"):
        for found in record["falsified"]:
            claimed = run.smoothing.noise.probability_left(record["p_lower"], record["radius"], found["length"])
            upper = stats.clopper_pearson_upper(found["votes"], spec.n, spec.alpha)
            if upper < claimed:
                known = {key: record[key] for key in ("item", "prediction", "p_lower", "radius")}
                yield {**known, **found, "n": spec.n, "upper": upper, "claimed": claimed}
