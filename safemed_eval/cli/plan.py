"""safemed-eval plan."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from safemed_eval import attacks, grammar
from safemed_eval.cli._items import choose, verified
from safemed_eval.cli._model import load_model, refuse_senseless, resolve_model
from safemed_eval.cli._options import DataOptions, ModelOptions, grouped
from safemed_eval.cli._show import as_json, print_table, progress, say
from safemed_eval.errors import SpecError

if TYPE_CHECKING:
    from safemed_eval.runs.plan import Cost

EXAMPLE = "Example: safemed-eval plan --model ckpt --data omnimedvqa:DIR --sigma 0.25 --attack pgd:eps=4/255"
_BATCH, _CPU_BATCH = 64, 16
_DEVICES = (1, 8, 64)
_AT_LEAST = "\u2265 "


@grouped
def plan(
    model: ModelOptions,
    data: DataOptions,
    sigma: Annotated[str | None, typer.Option(help="As in certify; without it no certificates are planned.")] = None,
    n0: Annotated[int, typer.Option(help="As in certify.")] = 100,
    n: Annotated[int, typer.Option(help="As in certify.")] = 1000,
    alpha: Annotated[float, typer.Option(help="As in certify.")] = 0.001,
    radii: Annotated[str, typer.Option(help="As in certify, for sequential sampling.")] = grammar.RADII,
    attack: Annotated[list[str] | None, typer.Option(help="As in evaluate. May be repeated.")] = None,
    pilot: Annotated[int, typer.Option(min=2, max=1000, help="Items that are timed, drawn by --seed.")] = 8,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Rows together. Default: 64 on a GPU, else 16.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the pilot and its noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What a run will cost: times a few items, for half a minute, and says how many hours all of them will take.

    Ctrl-C ends the timings, and shows what is known by then.
    """
    from safemed_eval.smoothing import Sequential, Smoothing

    chosen = attacks.parse_all(attack or [])
    if sigma is None and not chosen:
        raise SpecError("plan: name what is to be planned, --sigma 0.25 or --attack pgd, or both")
    for one in chosen:
        if one.surrogate or "texts" in one.needs:
            raise SpecError(f"--attack {one}: cannot be timed here; plan pgd with as many steps")
    budgets: tuple[Smoothing, Sequential] | None = None
    if sigma is not None:
        value = grammar.number(sigma, "--sigma")
        try:
            budgets = (
                Smoothing(sigma=value, n0=n0, n=n, alpha=alpha),
                Sequential(sigma=value, radii=grammar.radii(radii, value), n=n, alpha=alpha),
            )
        except ValueError as error:
            raise SpecError(f"plan: {error}") from None
    refuse_senseless(model)
    choice = choose(data, seed)
    canvas = choice.canvas
    if canvas.size is None:
        raise SpecError("--canvas native: images of different sizes cost differently; name a size")
    items = len(choice)
    source = resolve_model(model.model, model, model.denoiser)
    few = verified(choice.pilot(min(pilot, items))).items
    waist = load_model(source, model, seed)
    from safemed_eval.models.check import refuse_lacking
    from safemed_eval.runs.plan import Pilot

    refuse_lacking(waist, attacks.needs_of(chosen), source.name)

    batch = batch_size or (_CPU_BATCH if waist.device.type == "cpu" else _BATCH)
    timed = Pilot(waist, few, canvas, items=items, batch=batch, seed=seed)
    fixed, sequential = budgets or (None, None)
    costs: list[Cost] = []
    shown = progress(
        "timing",
        unit="timings",
        forwards=lambda: timed.model.forwards,
        note=lambda: timed.now,
        share=lambda: timed.share,
    )
    with shown as tick:
        tick(0, total := 2 * bool(budgets) + len(chosen))
        for cost in timed.costs(fixed, sequential, chosen):
            costs.append(cost)
            tick(len(costs), total)
    _show(costs, batch, len(few), waist.device_name, stopped=timed.stopped, json=json)
    if timed.stopped:
        raise typer.Exit(130)


def _show(costs: list[Cost], batch: int, pilot: int, device: str, *, stopped: bool, json: bool) -> None:
    if json:
        rows: list[dict[str, Any]] = [
            asdict(cost) | {"calls": cost.calls, "hours": {str(k): cost.hours(k) for k in _DEVICES}} for cost in costs
        ]
        facts = {"device": device, "batch": batch, "pilot": pilot, "stopped": stopped, "costs": rows}
        typer.echo(as_json(facts))
        return
    print_table("", [(cost.what, _cells(cost)) for cost in costs])
    for cost in costs:
        say(escape(f"{cost.what}: timed {cost.timed}."))
    if any(cost.at_least for cost in costs):
        say(
            escape(
                "\u2265: the first item was not done in time; what it had taken by then is a lower bound, and no "
                "estimate. A faster device, or fewer --n or steps, will tell more."
            )
        )
    if stopped:
        say("Stopped: what is n/a was not timed.", "yellow")
    say(
        escape(
            f"{costs[0].items:,} items, on {device}, in batches of {batch}. Calls an item are noisy copies, or forward "
            "passes of an attack, with 95 % intervals where they differ between items. Hours are by the clock if items "
            "share out evenly, and as rough as a pilot of a few seconds is."
        )
    )


def _cells(cost: Cost) -> dict[str, str]:
    def cell(value: float | None, form: str) -> str:
        return "n/a" if value is None else f"{_AT_LEAST * cost.at_least}{value:{form}}"

    spread = f" \u00b1 {cost.spread:.0f}" if cost.spread else ""
    return {
        "calls/item": f"{cell(cost.each, ',.0f')}{spread}",
        "calls": cell(cost.calls, ","),
        "s/item": cell(cost.seconds, ".3g"),
    } | {f"hours on {k}": cell(cost.hours(k), ",.3g") for k in _DEVICES}
