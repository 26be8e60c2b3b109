"""A run folder in memory: what was asked, and one row per record. Certificates are read anew from their votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from safemed_eval import grammar
from safemed_eval.core import MODALITIES, QUESTION_TYPES, UNATTACKED, UNKNOWN
from safemed_eval.errors import RunError, SpecError
from safemed_eval.report._certificates import read_certificates
from safemed_eval.report._checked import check_meta, check_records
from safemed_eval.runs import read_meta, read_records
from safemed_eval.smoothing import SEQUENTIAL, Budget, Sequential, budget_of

Json = dict[str, Any]

SLICES = {"modality": "modality", "question_type": "question type"}
"""The columns that everything is broken down by, and what to call them."""


_KNOWN = {name: place for place, name in enumerate((*MODALITIES, *QUESTION_TYPES))}


def in_order(names: Iterable[str]) -> list[str]:
    """Slices as tables and figures list them: the eight and the five in their fixed order, others, then unknown."""
    return sorted(names, key=lambda name: (name == UNKNOWN, _KNOWN.get(name, len(_KNOWN)), name))


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """One run folder.

    Attributes:
        name: what figures and tables call the run; that of the model, unless the user or a twin asks for more.
        frame: one row per record, with `cluster` and `at_stake` beside the record's own fields; a modality or question
            type that is not known is "unknown".
        alpha: at which certificates were read; None for `evaluate`.
        with_images: whether a report may show images that the run has kept.
    """

    out: Path
    name: str
    meta: Json
    frame: pd.DataFrame
    alpha: float | None
    with_images: bool = True

    @property
    def spec(self) -> Json:
        spec: Json = self.meta["spec"]
        return spec

    @property
    def kind(self) -> str:
        """ "evaluate" or "certify"."""
        return str(self.spec["command"])

    @property
    def conditions(self) -> list[str]:
        """The attacks, clean first; none for `certify`."""
        return list(self.meta["conditions"])

    @property
    def smoothing(self) -> Budget:
        """Of a `certify` run, with the alpha at which it was read."""
        assert self.alpha is not None
        return replace(budget_of(self.spec), alpha=self.alpha)

    @property
    def sequential(self) -> bool:
        """Whether a `certify` run draws as many noisy copies as it takes to decide its radii, and knows no others."""
        return self.spec.get("sampling") == SEQUENTIAL

    @property
    def has_images(self) -> bool:
        """Whether there are kept images to show."""
        return self.with_images and (self.out / "images").is_dir()

    @property
    def unfinished(self) -> int:
        """How many records the run still lacks."""
        return int(self.meta["items"]) * max(1, len(self.conditions)) - len(self.frame)

    @property
    def failed(self) -> int:
        """How many items have an error in a record."""
        return 0 if self.frame.empty else int(self.frame.loc[self.frame["error"].notna(), "item"].nunique())

    @property
    def all_failed(self) -> dict[str, str]:
        """Where `nothing_measured` holds: the condition, or for `certify` its own name, and its first error."""
        parts = {name: self.under(name) for name in self.conditions} or {self.kind: self.frame}
        return {name: str(part["error"].dropna().iloc[0]) for name, part in parts.items() if nothing_measured(part)}

    @property
    def failures(self) -> list[str]:
        """What a reader must know of the items that failed, in sentences that follow a colon."""
        if not self.failed:
            return []
        lost, rows = self.all_failed, self.frame[self.frame["error"].notna()]
        rows = rows[~rows["attack"].isin(lost)] if self.conditions else rows[:0] if lost else rows
        some = rows["item"].nunique()
        found = [f"{some} of {self.meta['items']} items failed and count as wrong."] if some else []
        return found + [f"{self.words_of_failure(name)}, and nothing was measured." for name in lost]

    def words_of_failure(self, condition: str) -> str:
        """Of a condition in `all_failed`."""
        if not self.conditions:
            return "every item failed"
        which = "" if self.under(condition)["error"].notna().all() else " that was right when clean"
        return f"every item{which} failed under {condition}"

    def under(self, condition: str) -> pd.DataFrame:
        """The rows of one attack."""
        return self.frame if self.frame.empty else self.frame[self.frame["attack"] == condition]


def nothing_measured(part: pd.DataFrame) -> bool:
    """Whether these rows of one condition hold failures alone: a failure is no success of an attack.

    What was wrong when clean is wrong under an attack without a search, and says nothing of it: where everything else
    failed, nothing was measured either.
    """
    if part.empty:
        return False
    failed = part["error"].notna()
    return bool(failed.any() and not (~failed & (part["at_stake"] | part["correct"])).any())


def load(out: Path, *, alpha: float | None = None, name: str | None = None) -> LoadedRun:
    """Read a run folder.

    Args:
        alpha: read the certificates of a `certify` run at this one instead of its own.
        name: what to call it; by default its model.
    Raises:
        RunError: not a run folder, not a run of evaluate or certify, or one that contradicts itself: a certificate does
            not follow from its votes, a record was not asked for.
        SpecError: no certificate is possible at this alpha.
    """
    meta, records = read_meta(out), read_records(out)
    own = check_meta(out, meta)
    check_records(out, meta, records, own)
    try:
        frame = pd.DataFrame(records)
    except UnicodeEncodeError as error:
        raise RunError(f"{out}: a record holds text that is no Unicode ({error.reason}); was it edited?") from None
    if not frame.empty:
        frame["cluster"] = frame["patient_id"].fillna(frame["image_sha256"]).fillna(frame["image"])
        frame["at_stake"] = _at_stake(frame)
        for column in SLICES:
            frame[column] = frame[column].fillna(UNKNOWN)
    if own is None:
        alpha = None
    else:
        alpha = own.alpha if alpha is None else alpha
        try:
            replace(own, alpha=alpha)
        except ValueError as error:
            raise SpecError(f"--alpha {alpha}: {error}") from None
        read = read_certificates(out, records, own, alpha)
        frame = frame if frame.empty else frame.assign(**{str(column): read[column] for column in read})
    return LoadedRun(out=out, name=name or _model_of(meta), meta=meta, frame=frame, alpha=alpha)


def _at_stake(frame: pd.DataFrame) -> pd.Series[bool]:
    """Whether an attack could flip the answer of each row: not where the answer to the clean image is wrong already."""
    if "attack" not in frame:
        return pd.Series(True, index=frame.index)
    clean = frame[(frame["attack"] == "clean") & frame["error"].isna()]
    wrong = clean.loc[~clean["correct"].astype(bool), "item"]
    return ~frame["item"].isin(wrong) | frame["attack"].isin(UNATTACKED)


def _model_of(meta: Json) -> str:
    """The model's name, with its denoiser's, and whether it was smoothed: then it is another model."""
    parts = (meta["names"]["model"], meta["names"].get("denoiser"))
    name, voting = " + ".join(Path(part).name for part in parts if part), meta["spec"].get("smooth")
    return f"{name}, smoothed at sigma {voting['sigma']:g}" if voting else name


def load_all(runs: Sequence[str], *, alpha: float | None = None, images: bool = True) -> list[LoadedRun]:
    """Read several, each written as FOLDER or NAME=FOLDER, and tell those of one name apart.

    Args:
        images: whether a report of them may show kept images.
    Raises:
        SpecError: a folder is given twice, or two runs are given one name.
    """
    loaded, given = [], []
    for text in runs:
        name, equals, folder = text.partition("=")
        named = bool(equals) and not Path(text).exists()
        if named and not (name and folder):
            raise SpecError(f"{text}: write NAME=FOLDER, or the folder alone")
        run = load(Path(folder if named else text), alpha=alpha, name=name if named else None)
        loaded.append(replace(run, with_images=images))
        given += [(name, loaded[-1].kind)] if named else []
    twice = [str(out) for out, count in Counter(run.out.resolve() for run in loaded).items() if count > 1]
    twice += [name for (name, _), count in Counter(given).items() if count > 1]
    if twice:
        raise SpecError(f"{twice[0]}: is given twice")
    words: tuple[Callable[[LoadedRun], str], ...] = (
        lambda run: f"sigma {run.spec['smoothing']['sigma']:g}" if run.kind == "certify" else "",
        lambda run: SEQUENTIAL if run.sequential else "",
        lambda run: run.out.name,
        lambda run: str(run.out),
    )
    for word in words:
        counts = Counter((run.name, run.kind) for run in loaded)
        loaded = [
            replace(run, name=f"{run.name}, {word(run)}")
            if counts[run.name, run.kind] > 1 and word(run) and (run.name, run.kind) not in given
            else run
            for run in loaded
        ]
    return loaded


def radii_of(runs: Sequence[LoadedRun], radii: str | None) -> str:
    """Where certified accuracy is read: as it says, or else at the usual radii, and all that sequential runs know."""
    if radii is not None:
        return radii
    known: dict[str, float] = {}
    for run in runs:
        if run.kind == "certify":
            own = run.smoothing
            found = own.radii if isinstance(own, Sequential) else grammar.radii(grammar.RADII, own.sigma)
            known |= {name: known.get(name, radius) for name, radius in found.items()}
    return ",".join(sorted(known, key=lambda name: known[name])) or grammar.RADII
