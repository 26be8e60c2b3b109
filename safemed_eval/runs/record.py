"""The typed lines of records.jsonl: the result of one item under one condition, or its certificate.

The constructor refuses values that contradict each other, and `check` those that contradict the run's spec. Reports
always recompute certificates from their votes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, Len

from safemed_eval.codec import Json, encode
from safemed_eval.core import CIRCULAR, MAX_OPTIONS, SHUFFLED
from safemed_eval.data import Match
from safemed_eval.data.images.resample import How, Resize
from safemed_eval.models.answers import Told
from safemed_eval.runs.spec import CertifySpec, EvaluateSpec
from safemed_eval.smoothing import (
    FLOAT32,
    Exhaustive,
    Falsification,
    PatchSearch,
    Smoothing,
    View,
    read_prediction,
    read_wrong,
    two_classes,
)
from safemed_eval.smoothing.votes import selected
from safemed_eval.threat import Rectangle

Count = Annotated[int, Ge(0)]
Size = Annotated[float, Ge(0)]

SOMETIMES: Mapping[str, str] = {"beside": ""}
"""Metadata of a field that most records do not use: the JSON leaves it out where it is None."""
VOTED: Mapping[str, str] = {"beside": "votes"}
"""Metadata of a field that the JSON has wherever it has votes."""
SEQUENCED: Mapping[str, str] = {"beside": "radii"}
"""Metadata of a field that the JSON has wherever it has radii, failed items included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRecord:
    """The fields that all records share; those of the item are described in `core.Item`.

    Args:
        prediction: the answered option; None: no answer, an abstention, or a failure.
        correct: True if that is the gold option.
        batch: batch size.
        seconds: the item's share of the time that its batch took.
        error: why the item failed, or None. A failed item stays in every denominator and counts as wrong.
    """

    __pydantic_config__: ClassVar = {"allow_inf_nan": False}

    kind: ClassVar[str]

    item: str
    question: str
    options: Annotated[tuple[str, ...], Len(2, MAX_OPTIONS)]
    label: Count
    modality: str | None
    question_type: str | None
    source: str | None = None
    image: str
    image_sha256: str | None
    patient_id: str | None
    extra: Mapping[str, str] = field(default_factory=dict)
    prediction: int | None
    correct: bool
    batch: Count | None = None
    seconds: Size | None = None
    error: str | None

    def __post_init__(self) -> None:
        for name in ("label", "prediction"):
            self._refuse_no_option(name, getattr(self, name))
        right = self.error is None and self.prediction == self.label
        if self.correct != right:
            raise ValueError(f"says correct={self.correct}, but its prediction says otherwise")

    @property
    def cluster(self) -> str:
        """The patient, or else the image: items of one cluster are not independent."""
        return self.patient_id or self.image_sha256 or self.image

    @property
    def failed(self) -> bool:
        return self.error is not None

    def to_json(self, asked: Collection[str] = ()) -> Json:
        """Convert the record to a line of records.jsonl.

        Args:
            asked: fields that are always included, None or not; see `Spec.recorded`.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        beside = {f.name: f.metadata["beside"] for f in fields(self) if f.metadata and f.name not in asked}
        left_out = {name for name, other in beside.items() if values[name] is None and values.get(other) is None}
        return {"kind": self.kind} | {name: encode(value) for name, value in values.items() if name not in left_out}

    def _refuse_no_option(self, name: str, option: int | None) -> None:
        if option is not None and not 0 <= option < len(self.options):
            raise ValueError(f"{name} {option} is none of its options")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateRecord(ItemRecord):
    """The answer to one item under one condition: an attack, or the official or the circular one.

    Args:
        attack: the condition.
        log_probs: log-probabilities of the item's own options; None where the model gives none.
        text: the generated text.
        told: what reports need of the text, in a record that withholds the text itself.
        linf, l2: distance of the attacked canvas, or of the image at its own size where the run is about that, from the
            clean one, in [0, 1] pixel units.
        steps: gradient steps, or queries of a black-box attack.
        target: the option that a targeted attack aimed at.
        climb, dead: diagnostics of the search; see `attacks.Attacked`.
        rounded: the answer to a successfully attacked canvas after rounding it to 8 bits; None: not asked.
        official: whether the checkpoint's official path is right about the attacked image; None: not asked.
        rotations: for the circular condition, the answer to each rotation of the options.
        region: for an attack that is confined to a region, the share of the canvas's pixels that lie in it; 0: none,
            and the canvas stays clean.
        parts: for an attack made of several, True for each part that left the answer correct.
        rectangle: for an attack on a part of the canvas, the rectangle outside of which no pixel differs.
        asked: the question as it was put, where an attack put another one than the item's own.
        votes, p_value, abstained: for a smoothed model; see `smoothing.Prediction`.
        donor, match: for the shuffled condition, the id of the item whose image was shown; see `data.donors_of`.
        unavailable: why this condition cannot be had for this item. Such a record says nothing of the model: shares are
            over the other items, and the number of these is shown.
    """

    kind: ClassVar[str] = "evaluate"

    attack: str
    log_probs: tuple[float, ...] | None = None
    text: str | None = None
    told: Told | None = field(default=None, metadata=SOMETIMES)
    linf: Size | None = None
    l2: Size | None = None
    steps: Count | None = None
    target: int | None = None
    climb: Annotated[tuple[float, ...], Len(5, 5)] | None = None
    dead: Size | None = None
    rounded: int | None = None
    official: bool | None = field(default=None, metadata=SOMETIMES)
    region: Annotated[float, Ge(0), Le(1)] | None = field(default=None, metadata=SOMETIMES)
    rotations: tuple[int | None, ...] | None = field(default=None, metadata=SOMETIMES)
    parts: Mapping[str, bool] | None = field(default=None, metadata=SOMETIMES)
    rectangle: Rectangle | None = field(default=None, metadata=SOMETIMES)
    votes: tuple[int, ...] | None = field(default=None, metadata=SOMETIMES)
    p_value: float | None = field(default=None, metadata=VOTED)
    abstained: str | None = field(default=None, metadata=VOTED)
    donor: str | None = field(default=None, metadata=SOMETIMES)
    match: Match | None = field(default=None, metadata=SOMETIMES)
    unavailable: str | None = field(default=None, metadata=SOMETIMES)
    asked: str | None = field(default=None, metadata=SOMETIMES)

    def __post_init__(self) -> None:
        ItemRecord.__post_init__(self)  # slots make the class anew, and super() would look for the first
        if self.unavailable is not None and (self.error is not None or self.prediction is not None):
            raise ValueError("is unavailable, and has an answer or an error")
        measured = self.error is None and self.unavailable is None
        if (self.attack == SHUFFLED and measured) != (self.donor is not None and self.match is not None):
            raise ValueError("does not say whose image was shown")
        self._refuse_no_option("target", self.target)
        self._refuse_no_option("rounded", self.rounded)
        if self.told:
            self._refuse_no_option("told", self.told.conclusion)
        if self.log_probs is not None and len(self.log_probs) != len(self.options):
            raise ValueError("log_probs are not one number for each of its options")
        if self.attack == CIRCULAR and measured:
            self._check_rotations()

    def to_json(self, asked: Collection[str] = ()) -> Json:
        return ItemRecord.to_json(self, (*asked, *["rotations"] * (self.attack == CIRCULAR)))

    def _check_rotations(self) -> None:
        answers, places = self.rotations or (), (*range(len(self.options)), None)
        if len(answers) != len(self.options) or any(answer not in places for answer in answers):
            raise ValueError("rotations are not one answer for each of its options")
        if self.prediction != next((answer for answer in answers if answer != self.label), self.label):
            raise ValueError("its prediction does not follow from its rotations")

    def check(self, spec: EvaluateSpec) -> None:
        """Raise ValueError where the record contradicts the spec."""
        if self.attack not in spec.conditions:
            raise ValueError(f"is of attack {self.attack!r}, which was not asked for")
        if spec.smooth and self.error is None and self.unavailable is None:
            refuse_other_counts("votes", self.votes, self.options, spec.smooth.n)
            voted = read_prediction(self.votes or (), spec.smooth.alpha)
            if (self.prediction, self.abstained) != (voted.prediction, voted.abstained):
                raise ValueError("its answer does not follow from its votes")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """The result of one search within a certified radius; see `runs.work.falsify`.

    Args:
        share: share of the radius that the search was limited to.
        length: size of the resulting change, in the measure of the noise.
        votes: votes for the certified class there, among `Falsification.n` noisy copies.
        rival: votes for the strongest other class there; None: the certificate is of one class.
    """

    __pydantic_config__: ClassVar = {"allow_inf_nan": False}

    share: float
    length: Size
    votes: Count
    rival: Count | None = None


@dataclass(frozen=True, kw_only=True)
class PatchShot:
    """The votes under one patch of the certified size; see `runs.work.falsify_patch`.

    Args:
        size: columns and rows of the patch, which ends at the edge of the canvas; 0: no patch, the votes are counted
            again.
        top, left: its first row and column.
        votes: for classes 0 .. K.
        unexplained: how many votes differ of copies that show none of the patch.
    """

    size: Count
    top: Count
    left: Count
    votes: tuple[int, ...]
    unexplained: Count

    def refutes(self, votes: tuple[int, ...]) -> bool:
        """Tell whether this contradicts the certificate that these votes of all bands gave."""
        recounted = self.size > 0 or self.votes == votes
        return bool(self.unexplained) or not recounted or selected(self.votes) != selected(votes)


@dataclass(frozen=True, kw_only=True)
class CertifyRecord(ItemRecord):
    """The certificate of one item; see `core.Certificate` and `smoothing.SequentialCertificate`.

    Args:
        noise, sigma: the noise; see `smoothing.noise`. The certificates of `smoothing.Exhaustive` have no sigma, and
            neither n nor alpha.
        test: of sequential certificates; see `smoothing.Sequential`.
        hits: whether each draw is gold, in place of `draws`, in a record of a version that kept no more; see
            `smoothing.unpack`.
        view: the canvas, and the file where radii are about that; None in a record of a version that did not keep it.
        fill: the colour, in [0, 1] units, of what a band does not show; for certificates against patches.
        falsified: results of the searches within the certified radius; None: none was made.
        donor, match: the id of the item whose image was shown to the smoothed model as well; see `data.donors_of`.
        donor_votes, blank_votes: votes of the noisy copies of that image, and of a blank one, for classes 0 .. K; None:
            not asked. A blank image is shown unless the donor is of the same question.
    """

    kind: ClassVar[str] = "certify"

    sampling: str
    noise: str = FLOAT32
    sigma: float | None = field(default=None, metadata=SOMETIMES)
    view: View | None = field(default=None, metadata=SOMETIMES)
    fill: tuple[float, float, float] | None = field(default=None, metadata=SOMETIMES)
    n0: int | None = field(default=None, metadata=SOMETIMES)
    radii: Mapping[str, float] | None = field(default=None, metadata=SOMETIMES)
    n: int | None = field(default=None, metadata=SOMETIMES)
    alpha: float | None = field(default=None, metadata=SOMETIMES)
    test: str | None = field(default=None, metadata=SOMETIMES)
    votes0: tuple[int, ...] | None = None
    votes: tuple[int, ...] | None = None
    p_lower: Size | None = None
    radius: Size | None = None
    abstained: str | None = None
    certified: Mapping[str, bool] | None = field(default=None, metadata=SEQUENCED)
    max_log_e: Mapping[str, float] | None = field(default=None, metadata=SEQUENCED)
    stopped_at: Count | None = field(default=None, metadata=SEQUENCED)
    successes: Count | None = field(default=None, metadata=SEQUENCED)
    stopped: str | None = field(default=None, metadata=SEQUENCED)
    draws: str | None = field(default=None, metadata=SEQUENCED)
    hits: str | None = field(default=None, metadata=SOMETIMES)
    falsified: tuple[Shot, ...] | tuple[PatchShot, ...] | None = field(default=None, metadata=SOMETIMES)
    donor: str | None = field(default=None, metadata=SOMETIMES)
    match: Match | None = field(default=None, metadata=SOMETIMES)
    donor_votes: tuple[int, ...] | None = field(default=None, metadata=SOMETIMES)
    blank_votes: tuple[int, ...] | None = field(default=None, metadata=SOMETIMES)

    def check(self, spec: CertifySpec) -> None:
        """Raise ValueError where the record contradicts the spec."""
        if self.error is not None:
            return
        budget, canvas = spec.budget, spec.canvas_size
        if self.view is None and self.noise != FLOAT32:
            raise ValueError("does not say on which canvas it was made")
        if self.view and canvas and (self.view.height, self.view.width) != canvas:
            raise ValueError(f"was made on {self.view.height}x{self.view.width}, the run on {spec.canvas}")
        self._check_file(spec)
        for name, asked in {"sampling": budget.sampling, **asdict(budget)}.items():
            if getattr(self, name) != asked:
                raise ValueError(f"was made with {name}={getattr(self, name)}, the run with another")
        if isinstance(budget, Exhaustive):
            assert self.view is not None
            refuse_other_counts("votes", self.votes, self.options, budget.draws(self.view.width))
        if isinstance(budget, Smoothing):
            refuse_other_counts("votes0", self.votes0, self.options, budget.n0)
            assert self.votes0 is not None
            if not (spec.stop_when_wrong and self.votes is None and read_wrong(self.votes0, self.label)):
                refuse_other_counts("votes", self.votes, self.options, budget.n)
        if spec.grounding:
            asked = asks_donor(self.votes0, self.label)
            for name, votes, due in (
                ("donor_votes", self.donor_votes, asked and self.donor is not None),
                ("blank_votes", self.blank_votes, asked and self.match != "question"),
            ):
                if due:
                    refuse_other_counts(name, votes, self.options, spec.grounding.n)
                elif votes is not None:
                    raise ValueError(f"{name} are there, though nothing was to be asked")
        if spec.falsify and not self._fits(spec.falsify, two=two_classes(budget)):
            raise ValueError("falsified does not fit its certificate")

    def _fits(self, asked: Falsification | PatchSearch, *, two: bool) -> bool:
        """Tell whether what was found by searches is what such searches can find.

        Args:
            two: the certificate is of two classes, so that a rival's votes are counted.
        """
        if self.falsified is None or self.radius is None:
            return self.falsified is None and self.radius is None
        if isinstance(asked, Falsification):
            shots = [shot for shot in self.falsified if isinstance(shot, Shot)]
            most = max((shot.votes + (shot.rival or 0) for shot in shots), default=0)
            rivals = {shot.rival is not None for shot in shots} <= {two}
            return tuple(shot.share for shot in shots) == asked.shares and most <= asked.n and rivals
        patches = [shot for shot in self.falsified if isinstance(shot, PatchShot)]
        sizes = [0] + [int(self.radius)] * (asked.positions if self.radius else 0)
        votes = self.votes or ()
        return [shot.size for shot in patches] == sizes and all(
            len(shot.votes) == len(votes) and min(shot.votes) >= 0 and sum(shot.votes) == sum(votes) for shot in patches
        )

    def _check_file(self, spec: CertifySpec) -> None:
        """Raise ValueError where the certificate is not about the run's domain, or has another norm than the resize."""
        file = self.view.file if self.view else None
        if (file is None) != (spec.domain == "canvas"):
            raise ValueError(f"is not about the {spec.domain}, as the run is")
        if file and spec.canvas_size:
            how: How = "pad" if spec.canvas.endswith("pad") else "stretch"
            norm = Resize(before=(file.height, file.width), size=spec.canvas_size, how=how).norm
            if not math.isclose(file.norm, norm, rel_tol=1e-6):
                raise ValueError(f"has the norm {file.norm:g}, the resize of its file {norm:g}")


Record = EvaluateRecord | CertifyRecord


def asks_donor(votes0: tuple[int, ...] | None, label: int) -> bool:
    """Tell whether `certify` with grounding asks about other images: not where another class than gold is selected.

    Args:
        votes0: the selection votes; None for a class that is fixed beforehand, which is gold.
    """
    return votes0 is None or not read_wrong(votes0, label)


def refuse_other_counts(name: str, votes: tuple[int, ...] | None, options: tuple[str, ...], draws: int) -> None:
    """Raise ValueError unless these are `draws` votes for the options and "no answer"."""
    if votes is None or len(votes) != len(options) + 1 or min(votes) < 0 or sum(votes) != draws:
        raise ValueError(f"{name} are not {draws} votes for its options or no answer")
