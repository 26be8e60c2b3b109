"""safemed-eval plan."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from safemed_eval import attacks, grammar
from safemed_eval import data as datasets
from safemed_eval.cli._items import load_usable, select
from safemed_eval.cli._model import load_model, refuse_senseless, resolve_model
from safemed_eval.cli._options import DataOptions, ModelOptions, grouped
from safemed_eval.cli._show import print_table, say, status
from safemed_eval.errors import SpecError

if TYPE_CHECKING:
    from safemed_eval.plan import Cost

EXAMPLE = "Example: safemed-eval plan --model ckpt --data omnimedvqa:DIR --sigma 0.25 --attack pgd:eps=4/255"
_BATCH, _CPU_BATCH = 64, 16
_DEVICES = (1, 8, 64)


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
    """What a run will cost: times a few items, and says how many hours all of them will take."""
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
    loaded = datasets.load(data.data, data.data_root)
    canvas = datasets.parse_canvas(data.canvas, data.fit, loaded.canvas)
    if canvas.size is None:
        raise SpecError("--canvas native: images of different sizes cost differently; name a size")
    items = len(select(loaded, data, seed).items)
    source = resolve_model(model.model, model, model.denoiser)
    few = load_usable(loaded, replace(data, per_group=None, limit=min(pilot, items), skip_bad=True), seed).items
    waist = load_model(source, model, seed)
    from safemed_eval.models.check import refuse_lacking
    from safemed_eval.plan import Pilot

    refuse_lacking(waist, attacks.needs_of(chosen), source.name)

    batch = batch_size or (_CPU_BATCH if waist.device.type == "cpu" else _BATCH)
    timed = Pilot(waist, few, canvas, items=items, batch=batch, seed=seed)
    costs: list[Cost] = []
    with status("timing a few items"):
        if budgets:
            rate = timed.copies_per_second(budgets[0].sigma)
            costs += [timed.fixed(budgets[0], rate), timed.sequential(budgets[1], rate)]
        costs += [timed.attack(one) for one in chosen]
    _show(costs, batch, len(few), waist.device_name, as_json=json)


def _show(costs: list[Cost], batch: int, pilot: int, device: str, *, as_json: bool) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [
            asdict(cost) | {"calls": cost.calls, "hours": {str(k): cost.hours(k) for k in _DEVICES}} for cost in costs
        ]
        typer.echo(jsonlib.dumps({"device": device, "batch": batch, "pilot": pilot, "costs": rows}, indent=2))
        return
    print_table("", [(cost.what, _cells(cost)) for cost in costs])
    say(
        escape(
            f"{costs[0].items:,} items; {pilot} of them timed on {device}, in batches of {batch}. Calls an item are "
            "noisy copies, or forward passes of an attack, with 95 % intervals where they differ between items. Hours "
            "are by the clock if items share out evenly, and as rough as a pilot of a few seconds is."
        )
    )


def _cells(cost: Cost) -> dict[str, str]:
    spread = f" \u00b1 {cost.spread:.0f}" if cost.spread else ""
    hours = {f"hours on {k}": f"{cost.hours(k):,.3g}" for k in _DEVICES}
    return {
        "calls/item": f"{cost.each:,.0f}{spread}",
        "calls": f"{cost.calls:,}",
        "s/item": f"{cost.seconds:.3g}",
    } | hours
