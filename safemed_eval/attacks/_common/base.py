"""The base of every attack: a frozen spec, a threat model, and a search inside its ball."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from safemed_eval import grammar, plugins
from safemed_eval.attacks._common.problem import Attacked, Problem, search_within
from safemed_eval.errors import DataError
from safemed_eval.threat import Norm, Threat, spelled_region

if TYPE_CHECKING:
    import torch

    from safemed_eval.core import Classify, Item, Need, Question

Loss = Literal["ce", "margin", "dlr", "pm"]
Start = Literal["random", "zero"]
Target = Literal["none", "runner-up", "least-likely", "random"]
Value = bool | int | float | str
"""An option that a spec can write."""

Role = Literal["clean", "control", "attack", "corruption", "prompt"]
"""A control changes images without a search, a corruption as it happens in practice; a prompt changes the question."""

DEFAULT_LINF_EPS = 4 / 255
TRAVEL: Mapping[Norm, float] = {"linf": 2.5, "l2": 4.0}
"""Default total length of all steps, in eps. In L2 a random start is nearly orthogonal to the gradient, and the search
turns towards it step by step: after 2.5 eps an attack on a linear model would be 2.5 % short of the optimum."""
_MANY_STEPS = 2
"""From this strength on an attack takes as many gradient steps as it is allowed."""
MAX_EPS = 10**5
"""Larger than any change of a canvas of 8192 x 8192 pixels."""
_BUILT_IN = "safemed_eval.attacks."
MAX_COUNT = 10**6
"""Largest number of steps, restarts or queries; a larger one is taken for a typing error."""


def refuse_counts(**counts: int) -> None:
    """Raise ValueError where one of the counts is below 1, or above MAX_COUNT."""
    for name, count in counts.items():
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"{name} must be at least 1, and at most {MAX_COUNT:,}, got {count}")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about an attack for reports, checks and help texts.

    A class declares those of the first group; `attacks.facts_of` adds the others for one attack of a run.

    Args:
        role: an attack with `control=yes` among its options is a control, whatever its class declares.
        strength: place in the order of untargeted attacks in one ball: 0 random noise, 1 one step, 2 many steps,
            3 several attacks. None: no place in it.
        black_box: the search uses no gradient of the judged model.
        on_surrogate: it searches another model, and only tries the result on the judged one.
        aims_at: a "text" attack changes what the model writes, a "letter" attack the scores of the options alone.
        black_box_part: the name, in `Attacked.parts`, of the part of an attack that uses no gradient.
        for_all: it makes one change for all images, which need not all fall however large it is.
        example: a spec string, for help and advice.
        summary: a few words beside it.

        family: the spec without eps and norm: attacks of one family and norm are points of one curve.
        eps: None for an attack that has no ball.
        targeted: whether it aims at one wrong option.
        region: the pixels that it may change; None: all.
        kind: of a corruption, with its severity, and the set that it is of where that is not this package's own.
    """

    role: Role = "attack"
    strength: int | None = None
    black_box: bool = False
    on_surrogate: bool = False
    aims_at: Literal["letter", "text"] | None = "letter"
    black_box_part: str | None = None
    for_all: bool = False
    example: str = ""
    summary: str = ""

    family: str = ""
    norm: Norm = "linf"
    eps: float | None = None
    targeted: bool = False
    region: str | None = None
    kind: str | None = None
    severity: int | None = None
    set: str | None = None

    @property
    def climbs(self) -> bool:
        """Whether it follows the judged model's own gradient in many steps, to any wrong answer."""
        return self.strength is not None and self.strength >= _MANY_STEPS

    @property
    def should_flip(self) -> bool:
        """Whether it looks for any wrong answer of the judged model: with all images in its ball it must find one."""
        return self.role == "attack" and not (self.targeted or self.on_surrogate or self.for_all or self.region)


@dataclass(frozen=True, kw_only=True)
class Attack:
    """An attack with its options. Call it; a subclass implements `search` and declares its `facts`."""

    facts: ClassVar[Facts] = Facts()
    refills: ClassVar[bool] = False
    """Whether the search takes more rows than fit into a batch (`classify.at_once`), and refills it itself."""

    rewords: ClassVar[bool] = False
    """Whether it leaves the image as it is, and asks other `questions`."""
    fits: ClassVar[bool] = False
    """Whether `fit` is called on one half of a run's items before the search is tried on those of the other half."""

    @property
    def name(self) -> str:
        """The name in spec strings: the entry point's for a plug-in, else the module's."""
        cls = type(self)
        if not cls.__module__.startswith(_BUILT_IN):
            for name in plugins.plugins("attacks"):
                if plugins.load_plugin("attacks", name) is cls:
                    return name
        return cls.__module__.rpartition(".")[2]

    @property
    def threat(self) -> Threat:
        """The ball that bounds the attack."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[Need, ...]:
        """The capabilities of the searched model that the search uses; a model without them is refused before a run."""
        return ("scores", "gradients") if self.facts.role == "attack" else ()

    def looks(self, options: int) -> int | None:
        """Largest number of times that the search shows a row to the judged model, roughly; None where unknown.

        Args:
            options: number of options of the row's question.
        """
        return None if self.needs else 0

    @property
    def region(self) -> str | None:
        """The pixels that the attack may change, see `threat`; None: all."""
        return None

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The models that are searched instead of the judged one; none: the judged model itself."""
        return ()

    def unavailable(self, item: Item) -> str | None:
        """Say why this attack cannot be had for an item, which is then recorded instead; None: it can."""
        return None

    def questions(self, item: Item, seed: int) -> Sequence[Question]:
        """The questions to ask in place of the item's own, with its options, at least one: the worst answer counts.

        Args:
            seed: drawn for the item; it does not depend on other items.
        """
        return [item.question]

    @property
    def named(self) -> Collection[str]:
        """Ids of items that a file of the attack names: they must be in the data."""
        return ()

    def refuse_canvas(self, height: int, width: int) -> None:
        """Raise ValueError where the attack cannot be made on canvases of this size in pixels."""

    @property
    def can_be_planted(self) -> bool:
        """Whether `runs.work.planted` can test it: it follows the judged model's scores alone, anywhere in its ball."""
        return False

    @property
    def stream(self) -> str:
        """Name of the random stream: attacks with the same stream draw the same numbers for an item."""
        return str(self)

    @property
    def on_smoothed(self) -> Attack:
        """The variant of this attack for a smoothed model, whose scores are estimates that differ from call to call.

        Raises:
            ValueError: the attack stops at the first wrong prediction, which may be noise, or it is fitted without it.
        """
        if not self.needs:
            return self
        if self.fits:
            raise ValueError(f"{self.name} is fitted without noise; on a smoothed model use pgd or fgsm")
        raise ValueError(
            f"{self.name} stops at the first wrong prediction, which may be noise; on a smoothed model use pgd or fgsm"
        )

    @classmethod
    def spread(cls, pairs: Mapping[str, str]) -> list[Mapping[str, str]]:
        """Expand the options of a spec into those of each attack that it stands for; by default a single one."""
        return [pairs]

    @property
    def described(self) -> dict[str, object]:
        """The entry of this attack in a run's spec."""
        later = {f.name for f in fields(self) if f.metadata.get("later") and getattr(self, f.name) == f.default}
        return {"attack": self.name} | {key: value for key, value in asdict(self).items() if key not in later}

    def __str__(self) -> str:
        return grammar.write(self.name, self)

    def __call__(
        self,
        classify: Classify,
        canvas: torch.Tensor,
        labels: torch.Tensor,
        generators: Sequence[torch.Generator],
        *,
        quantize: bool = False,
        questions: Sequence[Question] | None = None,
        fitted: torch.Tensor | None = None,
        region: torch.Tensor | None = None,
        modalities: Sequence[str | None] | None = None,
    ) -> Attacked:
        """Search for canvases that change the answers. The caller judges success, on the result.

        Args:
            classify: bound to the B questions of the canvases.
            canvas: (B, 3, H, W) float32 in [0, 1].
            labels: (B,) int64, the gold options.
            generators: one per row, so that a row's result does not depend on its batch mates.
            quantize: keep the result on 8-bit grey levels.
            questions: the B questions, for attacks that use their texts.
            fitted: what `fit` returned, for an attack that is fitted.
            region: (B, 1, H, W) bool, the pixels that may change; all others keep their value exactly. None: all may
                change. An attack with a `region` needs it, see `data.region_of`.
            modalities: the modalities of the B images, for attacks that differ by them.
        Raises:
            DataError: the attack cannot be made on canvases of this size.
            RuntimeError: the search left its ball, [0, 1], the grey levels, or its regions.
        """
        try:
            self.refuse_canvas(*canvas.shape[2:])
        except ValueError as error:
            raise DataError(f"{self.name}: {error}") from None
        problem = Problem(
            classify=classify,
            canvas=canvas,
            labels=labels,
            generators=generators,
            quantize=quantize,
            questions=questions,
            fitted=fitted,
            modalities=modalities,
        )
        if region is None and self.region:
            raise TypeError(f"{self}: needs the pixels of its region, region=...")
        attacked = self.search(problem) if region is None else search_within(problem, region, self.search)
        inside = attacked.canvas if quantize else self.threat.project(canvas, attacked.canvas)
        self.threat.check(canvas, inside, on_grid=quantize, rectangles=attacked.rectangles)
        return replace(attacked, canvas=inside.detach())

    def fit(
        self, count: int, batches: Callable[[Sequence[int]], Iterable[Problem]], rng: torch.Generator
    ) -> torch.Tensor:
        """Make what the search needs of other items, for an attack with `fits`: (3, H, W) float32.

        Args:
            count: number of the items to fit on.
            batches: some of these, by number -> problems that fit into memory; items with unreadable images are left
                out. The result must not depend on how many rows a problem has.
        """
        raise NotImplementedError

    def search(self, problem: Problem) -> Attacked:
        """Search for canvases that change the answers; this is what a new attack implements.

        Import torch inside it, since specs are parsed without torch. `__call__` projects the result into the ball
        afterwards, unless `problem.quantize` is set.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BallAttack(Attack):
    """An attack inside an L-infinity or L2 ball.

    Args:
        eps: size of the ball in [0, 1] pixel units, over the whole canvas for L2. By default 4/255 for L-infinity;
            L2 has no default.
        region: the pixels that may change: background, border:PIXELS, or mask; None: all.
    """

    eps: float | None = field(default=None, metadata=grammar.ALWAYS)
    norm: Norm = "linf"
    region: str | None = field(default=None, metadata=grammar.LATER)

    def __post_init__(self) -> None:
        if self.region is not None:
            object.__setattr__(self, "region", spelled_region(self.region))
        if self.eps is None:
            if self.norm != "linf":
                raise ValueError(f"norm={self.norm} needs eps=...")
            object.__setattr__(self, "eps", DEFAULT_LINF_EPS)
        assert self.eps is not None
        if not 0 < self.eps <= MAX_EPS:
            raise ValueError(f"eps must be above 0 and at most {MAX_EPS}, got {self.eps:g}")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps={self.eps:g} is more than all of [0, 1]; grey levels are written eps=4/255")

    @property
    def can_be_planted(self) -> bool:
        return self.needs == ("scores", "gradients") and not self.surrogates and self.region is None

    @property
    def threat(self) -> Threat:
        assert self.eps is not None
        return Threat(norm=self.norm, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class SteppedAttack(BallAttack):
    """An attack inside a ball by gradient steps of one size.

    Args:
        step: size of one step as a fraction of eps; by default 2.5 / steps, in L2 4 / steps, at most 1; see TRAVEL.
    """

    steps: int = field(default=10, metadata=grammar.ALWAYS)
    step: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_counts(steps=self.steps)
        if self.step is not None and not 0 < self.step <= 2:
            raise ValueError(f"step is a fraction of eps in (0, 2], got {self.step:g}; steps is their number")

    @property
    def step_size(self) -> float:
        """Size of one step, in the unit of eps."""
        return self.threat.eps * (min(1.0, TRAVEL[self.norm] / self.steps) if self.step is None else self.step)
