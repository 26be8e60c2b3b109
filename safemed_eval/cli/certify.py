"""safemed-eval certify."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safemed_eval import grammar
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import prepare, started, write_all
from safemed_eval.cli._show import end_where_nothing_was_measured, show_run
from safemed_eval.core import Need
from safemed_eval.errors import SpecError

if TYPE_CHECKING:
    import torch

    from safemed_eval.data import Canvas
    from safemed_eval.runs.work.certify import Certification
    from safemed_eval.runs.workers import Loaded
    from safemed_eval.smoothing import Budget, Falsification

EXAMPLE = "Example: safemed-eval certify --model ckpt --data omnimedvqa:DIR --sigma 0.25 --out runs/b"
_BATCH = 64
_CPU_BATCH = 16


@grouped
def certify(
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    sigma: Annotated[
        str, typer.Option(help="Standard deviation of the noise, in [0, 1] pixel units: 0.25, or a fraction.")
    ],
    sampling: Annotated[
        Literal["fixed", "sequential"],
        typer.Option(
            help="fixed: n0 noisy copies select an answer, n more bound it. sequential: copies are drawn until it is "
            "decided which of --radii are certified for the gold answer, n at most; far fewer, if radii are few."
        ),
    ] = "fixed",
    n0: Annotated[
        int | None, typer.Option(help="Noisy copies that select the class; fixed only.", show_default="100")
    ] = None,
    n: Annotated[int, typer.Option(help="Noisy copies that bound its probability; sequential: at most.")] = 1000,
    alpha: Annotated[float, typer.Option(help="Probability that one certificate is false.")] = 0.001,
    radii: Annotated[
        str,
        typer.Option(
            help="Where certified accuracy is shown, and what sequential draws decide; the suffix s counts in sigma."
        ),
    ] = grammar.RADII,
    stop_when_wrong: Annotated[
        bool,
        typer.Option(
            "--stop-when-wrong",
            help="Draw no more where the selected answer is wrong: it is certified at no radius, and counted so.",
        ),
    ] = False,
    falsify: Annotated[
        bool,
        typer.Option(
            "--falsify",
            help="Attack every certificate within its radius; exit code 1 if more prove false than chance allows.",
        ),
    ] = False,
) -> None:
    """Certified L2 radii by randomized smoothing, by imaging modality and question type."""
    from safemed_eval.smoothing import Falsification, Sequential

    budget = _budget(grammar.number(sigma, "--sigma"), sampling, n0, n, alpha, radii)
    sequential = isinstance(budget, Sequential)
    if stop_when_wrong and sequential:
        raise SpecError("--stop-when-wrong: has no effect with --sampling sequential, which asks for gold only")
    attacked = Falsification() if falsify else None
    asked: dict[str, Any] = {"smoothing": asdict(budget), "sampling": budget.sampling}
    asked |= {"stop_when_wrong": True} if stop_when_wrong else {}
    asked |= {"falsify": asdict(attacked)} if attacked else {}
    label = f"sigma{budget.sigma:g}" + ("-sequential" if sequential else "")
    prepared = prepare("certify", model, data, run, asked, label=label)
    if not prepared.complete:
        from safemed_eval.runs.images import keep_refuting
        from safemed_eval.runs.meter import Meter
        from safemed_eval.runs.work.falsify import NEEDS
        from safemed_eval.runs.work.units import Certificates

        make = partial(
            _certification,
            canvas=prepared.canvas,
            smoothing=budget,
            seed=run.seed,
            wanted=run.batch,
            attacked=attacked,
            stop_when_wrong=stop_when_wrong,
        )

        needs: dict[Need, str] = dict.fromkeys(NEEDS, "--falsify") if falsify else {}

        def store(item: str, share: float, canvas: torch.Tensor) -> None:
            keep_refuting(prepared.place, prepared.called(item), share, canvas)

        with started(prepared, model, run, make, needs=needs, store=store) as (team, folder):
            certificates = Certificates(
                items=prepared.data.items,
                smoothing=budget,
                batch=team.ready.batch,
                done=folder.done,
                split=run.ray is not None and not stop_when_wrong,
                falsify=attacked,
            )
            meter = Meter(certificates.passes, lambda: team.forwards)
            found = certificates.records(meter.following(team.do(certificates.units())))
            write_all("certifying", team, folder, prepared, meter, found)
    summary = show_run(prepared.place, json=run.json, radii=grammar.radii(radii, budget.sigma))
    if falsify and not summary.notes["falsified"]["sound"]:
        raise typer.Exit(1)
    end_where_nothing_was_measured(summary)


def _certification(
    loaded: Loaded,
    *,
    canvas: Canvas,
    smoothing: Budget,
    seed: int,
    wanted: int | Literal["auto"] | None,
    attacked: Falsification | None,
    stop_when_wrong: bool,
) -> Certification:
    """The work, in whichever process the model has been loaded."""
    from safemed_eval.models.batch import batch_of
    from safemed_eval.runs.work.certify import Certification
    from safemed_eval.runs.work.falsify import Falsifier

    waist, falsifier = loaded.model, None
    default = _CPU_BATCH if waist.device.type == "cpu" else _BATCH
    batch = batch_of(wanted, default, waist, canvas.size, gradients=False)
    if attacked:
        falsifier = Falsifier(
            model=waist, spec=attacked, noise=smoothing.noise, seed=seed, batch=batch, keep=loaded.keep
        )
    return Certification(
        model=waist,
        canvas=canvas,
        smoothing=smoothing,
        seed=seed,
        batch=batch,
        falsify=falsifier,
        stop_when_wrong=stop_when_wrong,
    )


def _budget(sigma: float, sampling: str, n0: int | None, n: int, alpha: float, radii: str) -> Budget:
    """What the options ask for, or SpecError."""
    from safemed_eval.smoothing import SEQUENTIAL, Sequential, Smoothing

    points = grammar.radii(radii, sigma)
    try:
        if sampling != SEQUENTIAL:
            return Smoothing(sigma=sigma, n0=100 if n0 is None else n0, n=n, alpha=alpha)
        if n0 is not None:
            raise SpecError("--n0: has no effect with --sampling sequential, which selects no class")
        return Sequential(sigma=sigma, radii=points, n=n, alpha=alpha)
    except ValueError as error:
        raise SpecError(f"certify: {error}") from None
