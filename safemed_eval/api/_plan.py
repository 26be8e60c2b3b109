"""The function `plan`: the estimated cost of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safemed_eval import attacks as attack_specs
from safemed_eval import grammar
from safemed_eval.api._certify import BATCH, CPU_BATCH, refuse_bands
from safemed_eval.api._start import masks_digest, refuse_canvas
from safemed_eval.codec import typed
from safemed_eval.core import DEFAULT_NOISE, MAX_BATCH, MAX_PILOT
from safemed_eval.data import Choice, choice_of
from safemed_eval.errors import SpecError
from safemed_eval.models import AnyModel, Model, find_model
from safemed_eval.progress import progress
from safemed_eval.smoothing import Exhaustive, Patch, Sequential, Smoothing, View
from safemed_eval.smoothing.noise import parse
from safemed_eval.smoothing.offers import Offer, offers
from safemed_eval.threat import MASK

if TYPE_CHECKING:
    from safemed_eval.runs.plan import Cost


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The estimated cost of a run.

    Attributes:
        costs: costs of fixed and of sequential certificates, and of each attack.
        items: number of items of the run.
        pilot: number of items that were timed.
        batch: batch size.
        device: name of the device.
        stopped: True if Ctrl-C ended the timings.
        offers: what n and alpha buy, the asked ones first; empty where no certificates are planned.
    """

    costs: tuple[Cost, ...]
    items: int
    pilot: int
    batch: int
    device: str
    stopped: bool
    offers: tuple[Offer, ...] = ()


@typed
def plan(
    model: AnyModel,
    data: Choice | str | Callable[[], Choice],
    *,
    sigma: float | str | None = None,
    noise: str = DEFAULT_NOISE,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    radii: str = grammar.RADII,
    attacks: Sequence[str] = (),
    pilot: int = 8,
    batch_size: int | None = None,
    seed: int = 0,
) -> Plan:
    """Time a few items for half a minute, and estimate the cost of all of them.

    >>> import safemed_eval as se
    >>> planned = se.plan("builtin:sft", "phantom", attacks=["fgsm:eps=4/255"], pilot=2)
    >>> [cost.what for cost in planned.costs]
    ['fgsm:eps=4/255']

    Args:
        model: from `load_model`, or what that takes.
        data: what `load_data` takes, or from `data.choose_data`.
        sigma, noise, n0, n, alpha, radii: as in `certify`; without a sigma no certificates are timed, but
            those against patches, which have none.
        attacks: as in `evaluate`.
        pilot: number of items to time, drawn by `seed`.
        batch_size: rows per forward pass; by default 64 on a GPU, else 16.
        seed: seed of the pilot and its noise.
    Raises:
        SpecError: there is nothing to plan, or an attack cannot be timed.
    """
    if not 2 <= pilot <= MAX_PILOT:
        raise SpecError(f"--pilot {pilot}: write a number from 2 to {MAX_PILOT}")
    if batch_size is not None and not 1 <= batch_size <= MAX_BATCH:
        raise SpecError(f"--batch-size {batch_size}: write a number from 1 to {MAX_BATCH}")
    chosen = attack_specs.parse_all(attacks)
    budgets = _budgets(noise, sigma, n0, n, alpha, radii)
    if not budgets and not chosen:
        raise SpecError("plan: name what is to be planned, --sigma 0.25 or --attack pgd, or both")
    for attack in chosen:
        if attack.surrogates or attack.fits or "texts" in attack.needs:
            raise SpecError(f"--attack {attack}: cannot be timed here; plan pgd with as many steps")
        if attack.rewords:
            raise SpecError(f"--attack {attack}: cannot be timed here; it takes one answer for each of its wordings")
    choice = choice_of(data)
    if choice.canvas.size is None:
        raise SpecError("--canvas native: images of different sizes cost differently; name a size")
    refuse_canvas(chosen, choice.canvas)
    height, width = choice.canvas.size
    for budget in budgets:
        if isinstance(budget, Exhaustive):
            refuse_bands(budget, choice.canvas)
    judged = model if isinstance(model, Model) else find_model(model)
    with progress("reading images", transient=True) as tick:
        few = choice.pilot(min(pilot, len(choice))).verified(tick).items
    if masked := next((attack for attack in chosen if attack.region == MASK), None):
        masks_digest(few, f"--attack {masked}")
    waist = judged.waist
    from safemed_eval.models.check import refuse_lacking
    from safemed_eval.runs.plan import Pilot

    refuse_lacking(waist, attack_specs.needs_of(chosen), judged.name)
    batch = batch_size or (CPU_BATCH if waist.device.type == "cpu" else BATCH)
    timed = Pilot(waist, few, choice.canvas, items=len(choice), batch=batch, seed=seed)
    costs: list[Cost] = []
    shown = progress(
        "timing",
        unit="timings",
        forwards=lambda: timed.model.forwards,
        note=lambda: timed.now,
        share=lambda: timed.share,
    )
    with shown as tick:
        total = len(budgets) + len(chosen)
        tick(0, total)
        for cost in timed.costs((*budgets, *chosen)):
            costs.append(cost)
            tick(len(costs), total)
    return Plan(
        costs=tuple(costs),
        items=len(choice),
        pilot=len(few),
        batch=batch,
        device=waist.device_name,
        stopped=timed.stopped,
        offers=tuple(
            offer
            for budget in budgets
            if isinstance(budget, Smoothing)
            for offer in offers(budget, View(height=height, width=width), len(choice))
        ),
    )


def _budgets(
    noise: str, sigma: float | str | None, n0: int, n: int, alpha: float, radii: str
) -> tuple[Smoothing, Sequential] | tuple[Exhaustive] | tuple[()]:
    """Build the budgets to time: both kinds of sampling, that of patches, or none without a sigma."""
    value = grammar.number(sigma, "--sigma") if isinstance(sigma, str) else sigma
    if value is None and noise == DEFAULT_NOISE:
        return ()
    parsed = parse(noise, value)
    kind = str(parsed)
    if isinstance(parsed, Patch):
        return (Exhaustive(noise=kind),)
    assert value is not None
    try:
        return (
            Smoothing(noise=kind, sigma=value, n0=n0, n=n, alpha=alpha),
            Sequential(noise=kind, sigma=value, radii=grammar.radii(radii, value), n=n, alpha=alpha),
        )
    except ValueError as error:
        raise SpecError(f"plan: {error}") from None
