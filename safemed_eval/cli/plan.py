"""The command `safemed-eval plan`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from safemed_eval import grammar
from safemed_eval.cli._options import DataOptions, ModelOptions, grouped
from safemed_eval.cli._show import as_json, print_table, say
from safemed_eval.core import DEFAULT_NOISE, MAX_BATCH, MAX_PILOT
from safemed_eval.rounding import ceil_to, radius

if TYPE_CHECKING:
    from safemed_eval.api import Plan
    from safemed_eval.runs.plan import Cost
    from safemed_eval.smoothing.offers import Offer

EXAMPLE = "Example: safemed-eval plan --model ckpt --data omnimedvqa:DIR --sigma 0.25 --attack pgd:eps=4/255"
_DEVICES = (1, 8, 64)
_AT_LEAST = "\u2265 "


@grouped
def plan(
    model: ModelOptions,
    data: DataOptions,
    sigma: Annotated[str | None, typer.Option(help="As in certify; without it no certificates are timed.")] = None,
    noise: Annotated[str, typer.Option(help="As in certify.")] = DEFAULT_NOISE,
    n0: Annotated[int, typer.Option(help="As in certify.")] = 100,
    n: Annotated[int, typer.Option(help="As in certify.")] = 1000,
    alpha: Annotated[float, typer.Option(help="As in certify.")] = 0.001,
    radii: Annotated[str, typer.Option(help="As in certify, for sequential sampling.")] = grammar.RADII,
    attack: Annotated[list[str] | None, typer.Option(help="As in evaluate. May be repeated.")] = None,
    pilot: Annotated[int, typer.Option(min=2, max=MAX_PILOT, help="Number of items to time, drawn by --seed.")] = 8,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=MAX_BATCH, help="Batch size. Default: 64 on a GPU, else 16.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the pilot and its noise.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Estimate the cost of a run: time a few items for half a minute, and extrapolate to the hours that all will take.

    Ctrl-C ends the timings, and shows the results so far.
    """
    from safemed_eval import api

    planned = api.plan(
        model.find(model.model, seed),
        data.chosen(seed),
        sigma=sigma,
        noise=noise,
        n0=n0,
        n=n,
        alpha=alpha,
        radii=radii,
        attacks=attack or (),
        pilot=pilot,
        batch_size=batch_size,
        seed=seed,
    )
    _show(planned, json=json)
    if planned.stopped:
        raise typer.Exit(130)


def _show(planned: Plan, *, json: bool) -> None:
    costs = planned.costs
    if json:
        rows: list[dict[str, Any]] = [
            asdict(cost) | {"calls": cost.calls, "hours": {str(k): cost.hours(k) for k in _DEVICES}} for cost in costs
        ]
        facts = {"device": planned.device, "batch": planned.batch, "pilot": planned.pilot}
        facts |= {"stopped": planned.stopped, "costs": rows, "offers": [asdict(offer) for offer in planned.offers]}
        typer.echo(as_json(facts))
        return
    print_table("", [(cost.what, _cells(cost)) for cost in costs])
    if planned.offers:
        fixed = costs[0]
        print_table("what n and alpha buy", [_offered(offer, fixed) for offer in planned.offers])
    for cost in costs:
        say(escape(f"{cost.what}: timed {cost.timed}."))
    if any(cost.at_least for cost in costs):
        say(
            escape(
                "\u2265: time ran out within the first item; this is what it had taken so far, a lower bound and not "
                "an estimate. Use a faster device, or fewer --n or steps."
            )
        )
    if planned.stopped:
        say("Stopped: what is n/a was not timed.", "yellow")
    say(
        escape(
            f"{planned.items:,} items, on {planned.device}, in batches of {planned.batch}. Calls per item are noisy "
            "copies, or forward passes of an attack, with 95 % intervals where they differ between items. Hours are "
            "wall-clock time with the items divided evenly, and a rough estimate from a short pilot."
        )
    )


def _offered(offer: Offer, timed: Cost) -> tuple[str, dict[str, str]]:
    """Make the row of a choice of n and alpha, with hours scaled from the timed one."""
    hours = timed.hours(1)
    scaled = None if hours is None or timed.each is None else hours * offer.copies / timed.each
    return f"n {offer.n:,}, alpha {offer.alpha:g}", {
        "largest radius": radius(offer.ceiling),
        "false certificates, at most": f"{ceil_to(offer.false_at_most, 2):g}",
        "points off for the population": f"{offer.points:g}",
        "hours on 1": "n/a" if scaled is None else f"{scaled:,.3g}",
    }


def _cells(cost: Cost) -> dict[str, str]:
    def cell(value: float | None, form: str) -> str:
        return "n/a" if value is None else f"{_AT_LEAST * cost.at_least}{value:{form}}"

    spread = f" \u00b1 {cost.spread:.0f}" if cost.spread else ""
    return {
        "calls/item": f"{cell(cost.each, ',.0f')}{spread}",
        "calls": cell(cost.calls, ","),
        "s/item": cell(cost.seconds, ".3g"),
    } | {f"hours on {k}": cell(cost.hours(k), ",.3g") for k in _DEVICES}
