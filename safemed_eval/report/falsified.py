"""What attacks on certificates have found: which of them cannot be true, and whether chance explains that."""

from __future__ import annotations

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
        "sound", whether they are no more.
    """
    if not run.spec.get("falsify"):
        return None
    spec = Falsification(**run.spec["falsify"])
    attacked = 0 if run.frame.empty else int(run.frame["falsified"].notna().sum())
    refuted = [] if run.frame.empty else list(_refuted(run, spec))
    items = len({one["item"] for one in refuted})
    chance = min(1.0, run.smoothing.alpha + len(spec.shares) * spec.alpha)
    allowed = stats.false_certificates_at_most(len(run.frame), chance, DELTA) if len(run.frame) else 0
    return {
        "certificates": attacked,
        "refuted": refuted,
        "items": items,
        "allowed": allowed,
        "sound": items <= allowed,
    }


def _refuted(run: LoadedRun, spec: Falsification) -> Iterator[Json]:
    for record in run.frame[run.frame["falsified"].notna()].to_dict("records"):
        for found in record["falsified"]:
            claimed = stats.certified_lower(record["p_lower"], record["radius"], run.smoothing.sigma, found["length"])
            upper = stats.clopper_pearson_upper(found["votes"], spec.n, spec.alpha)
            if upper < claimed:
                known = {key: record[key] for key in ("item", "prediction", "p_lower", "radius")}
                yield {**known, **found, "n": spec.n, "upper": upper, "claimed": claimed}
