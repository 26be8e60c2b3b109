"""One line of records.jsonl, typed: what came of one item, under one condition or as a certificate.

A record refuses values that contradict each other. What it contradicts in its run's spec, `check_evaluate` and
`check_certify` say; certificates are always recomputed from their votes, see `runs.certificates`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, ClassVar

from annotated_types import Ge, Len

from safemed_eval.codec import Json, encode
from safemed_eval.core import CIRCULAR, MAX_OPTIONS
from safemed_eval.models.answers import Told
from safemed_eval.runs.spec import CertifySpec, EvaluateSpec
from safemed_eval.smoothing import Smoothing, read_prediction, read_wrong

Count = Annotated[int, Ge(0)]
Size = Annotated[float, Ge(0)]

SOMETIMES: Mapping[str, str] = {"beside": ""}
"""Metadata of a field that the JSON leaves out where it is None: most records have no use for it."""
VOTED: Mapping[str, str] = {"beside": "votes"}
"""Metadata of a field that the JSON has wherever it has votes."""
SEQUENCED: Mapping[str, str] = {"beside": "radii"}
"""Metadata of a field that the JSON has wherever it has radii, those of a failed item included."""


@dataclass(frozen=True, kw_only=True)
class ItemRecord:
    """What every record says of its item; see `core.Item`.

    Args:
        prediction: the answered option; None: no answer, an abstention, or a failure.
        correct: whether it is the gold option.
        batch: rows that went through the model together.
        seconds: an item's share of the time that its batch took.
        error: why the item failed; it stays in every denominator and counts as wrong.
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
        """The patient, or else the image: items that share one are not independent."""
        return self.patient_id or self.image_sha256 or self.image

    @property
    def failed(self) -> bool:
        return self.error is not None

    def to_json(self, asked: Collection[str] = ()) -> Json:
        """The record as a line of records.jsonl holds it.

        Args:
            asked: fields that are there in any case, None or not; see `Spec.recorded`.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        beside = {one.name: one.metadata["beside"] for one in fields(self) if one.metadata and one.name not in asked}
        left_out = {name for name, other in beside.items() if values[name] is None and values.get(other) is None}
        return {"kind": self.kind} | {name: encode(value) for name, value in values.items() if name not in left_out}

    def _refuse_no_option(self, name: str, option: int | None) -> None:
        if option is not None and not 0 <= option < len(self.options):
            raise ValueError(f"{name} {option} is none of its options")


@dataclass(frozen=True, kw_only=True)
class EvaluateRecord(ItemRecord):
    """The answer to one item under one condition: an attack, or the official or the circular one.

    Args:
        attack: the condition.
        log_probs: of the item's own options; None where the model has none.
        text: what the model wrote. `told`: what reports read of it, where the text itself is withheld.
        linf, l2: how far the attacked canvas is from the clean one, in [0, 1] pixel units.
        steps: gradient steps, or queries of a black-box attack.
        target: the option that a targeted attack aimed at.
        climb, dead: how the search went; see `attacks.Attacked`.
        rounded: the answer to a successfully attacked canvas after rounding it to 8 bits; None: not asked.
        rotations: of the circular condition, the answer to each rotation of the options.
        parts: of an attack made of several, whether each part left the answer right.
        votes, p_value, abstained: of a smoothed model; see `smoothing.Prediction`.
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
    rotations: tuple[int | None, ...] | None = field(default=None, metadata=SOMETIMES)
    parts: Mapping[str, bool] | None = field(default=None, metadata=SOMETIMES)
    votes: tuple[int, ...] | None = field(default=None, metadata=SOMETIMES)
    p_value: float | None = field(default=None, metadata=VOTED)
    abstained: str | None = field(default=None, metadata=VOTED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_no_option("target", self.target)
        self._refuse_no_option("rounded", self.rounded)
        if self.told:
            self._refuse_no_option("told", self.told.conclusion)
        if self.log_probs is not None and len(self.log_probs) != len(self.options):
            raise ValueError("log_probs are not one number for each of its options")
        if self.attack == CIRCULAR and self.error is None:
            self._check_rotations()

    def to_json(self, asked: Collection[str] = ()) -> Json:
        return super().to_json((*asked, *["rotations"] * (self.attack == CIRCULAR)))

    def _check_rotations(self) -> None:
        answers, places = self.rotations or (), (*range(len(self.options)), None)
        if len(answers) != len(self.options) or any(answer not in places for answer in answers):
            raise ValueError("rotations are not one answer for each of its options")
        if self.prediction != next((answer for answer in answers if answer != self.label), self.label):
            raise ValueError("its prediction does not follow from its rotations")

    def check(self, spec: EvaluateSpec) -> None:
        """Raise ValueError where the record contradicts what was asked."""
        if self.attack not in spec.conditions:
            raise ValueError(f"is of attack {self.attack!r}, which was not asked for")
        if spec.smooth and self.error is None:
            refuse_other_counts("votes", self.votes, self.options, spec.smooth.n)
            found = read_prediction(self.votes or (), spec.smooth.alpha)
            if (self.prediction, self.abstained) != (found.prediction, found.abstained):
                raise ValueError("its answer does not follow from its votes")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One search within a certified radius; see `runs.work.falsify`.

    Args:
        share: of the radius, at which it was made.
        length: L2 length of the change that it found.
        votes: for the certified class there, of `Falsification.n` noisy copies.
    """

    share: float
    length: Size
    votes: Count


@dataclass(frozen=True, kw_only=True)
class CertifyRecord(ItemRecord):
    """The certificate of one item; see `core.Certificate` and `smoothing.SequentialCertificate`.

    Args:
        falsified: what searches within the certified radius came to; None: none was made.
    """

    kind: ClassVar[str] = "certify"

    sampling: str
    sigma: float
    n0: int | None = field(default=None, metadata=SOMETIMES)
    radii: Mapping[str, float] | None = field(default=None, metadata=SOMETIMES)
    n: int
    alpha: float
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
    hits: str | None = field(default=None, metadata=SEQUENCED)
    falsified: tuple[Shot, ...] | None = field(default=None, metadata=SOMETIMES)

    def check(self, spec: CertifySpec) -> None:
        """Raise ValueError where the record contradicts what was asked."""
        if self.error is not None:
            return
        budget = spec.budget
        for name, asked in {"sampling": budget.sampling, **asdict(budget)}.items():
            if getattr(self, name) != asked:
                raise ValueError(f"was made with {name}={getattr(self, name)}, the run with another")
        if isinstance(budget, Smoothing):
            refuse_other_counts("votes0", self.votes0, self.options, budget.n0)
            assert self.votes0 is not None
            if not (spec.stop_when_wrong and self.votes is None and read_wrong(self.votes0, self.label)):
                refuse_other_counts("votes", self.votes, self.options, budget.n)
        if spec.falsify:
            shares = None if self.falsified is None else tuple(shot.share for shot in self.falsified)
            most = max((shot.votes for shot in self.falsified or ()), default=0)
            if shares != (None if self.radius is None else spec.falsify.shares) or most > spec.falsify.n:
                raise ValueError("falsified does not fit its certificate")


Record = EvaluateRecord | CertifyRecord


def refuse_other_counts(name: str, votes: tuple[int, ...] | None, options: tuple[str, ...], draws: int) -> None:
    """Raise ValueError unless these are so many votes for the options and for "no answer"."""
    if votes is None or len(votes) != len(options) + 1 or min(votes) < 0 or sum(votes) != draws:
        raise ValueError(f"{name} are not {draws} votes for its options or no answer")
