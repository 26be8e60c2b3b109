"""safemed-eval evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safemed_eval import attacks, grammar
from safemed_eval.attacks import Attack
from safemed_eval.cli._model import surrogate_of
from safemed_eval.cli._options import AskedOptions, ModelOptions, RunOptions, grouped
from safemed_eval.cli._prepare import prepare, started, surrogate_loading, write_all
from safemed_eval.cli._show import end_where_nothing_was_measured, show_run
from safemed_eval.core import CIRCULAR, CLEAN, OFFICIAL, Item
from safemed_eval.errors import SpecError

if TYPE_CHECKING:
    import torch

    from safemed_eval.data import Canvas
    from safemed_eval.runs.work.evaluate import Evaluation
    from safemed_eval.runs.workers import Loaded
    from safemed_eval.smoothing import Voting

EXAMPLE = (
    "Example: safemed-eval evaluate --model ckpt --data omnimedvqa:DIR "
    f"--attack {attacks.example_of(strength=1)} --attack {attacks.example_of(strength=2)} --out runs/a"
)
_BATCH = 16


@grouped
def evaluate(
    model: ModelOptions,
    data: AskedOptions,
    run: RunOptions,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{attacks.help_text()}. May be repeated; clean is always there.",
        ),
    ] = None,
    quantize: Annotated[
        bool,
        typer.Option(
            "--quantize",
            help="Keep attacked canvases on 8-bit grey levels, which a file of the canvas's size can hold; a file of "
            "another size is resized, and may not attack.",
        ),
    ] = False,
    keep_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Store N items per attack, lossless, for figures: first those that it turned from right to wrong.",
        ),
    ] = 0,
    smooth: Annotated[
        str | None,
        typer.Option(
            help="Answer, and be attacked, as the smoothed model does: sigma=0.25,n=100 (copies that vote), "
            "alpha=0.001 (else it abstains), m=8 (copies in each gradient of an attack)."
        ),
    ] = None,
    official: Annotated[
        bool, typer.Option("--official", help="Also answer through the 8-bit path, images at their own size.")
    ] = False,
    circular: Annotated[
        bool,
        typer.Option(
            "--circular",
            help="Also ask each clean image with its K options in all K rotations; right is who is right in all.",
        ),
    ] = False,
) -> None:
    """Accuracy, clean and under attack, by imaging modality and question type."""
    chosen = {str(one): one for one in attacks.parse_all([CLEAN, *(attack or [])])}
    conditions = [*chosen, *[OFFICIAL] * official, *[CIRCULAR] * circular]
    if official and model.model.startswith("python:"):
        raise SpecError("--official: only a transformers checkpoint has an official 8-bit path")
    surrogates = {one.surrogate: surrogate_of(one.surrogate, model) for one in chosen.values() if one.surrogate}
    needs = attacks.needs_of(chosen.values())
    if "texts" in needs and model.readout == "choice" and not model.model.startswith("python:"):
        raise SpecError(
            f"{needs['texts']}: is for models that write; add --readout generate, or use {attacks.name_of(strength=2)}"
        )
    voting = _voting(smooth, chosen.values(), without_noise={"--official": official, "--circular": circular})
    spec = {
        "attacks": {
            name: one.described | ({"surrogate": surrogates[one.surrogate].identity} if one.surrogate else {})
            for name, one in chosen.items()
        },
        "quantize": quantize,
        "official": official,
        **({"circular": True} if circular else {}),
        "keep_images": keep_images,
        **({"smooth": asdict(voting)} if voting else {}),
    }
    label = "-".join([*conditions[1:], *[f"smooth-{smooth}"] * bool(voting)])
    prepared = prepare("evaluate", model, data, run, spec, label=label, conditions=conditions)
    if keep_images and prepared.names:
        typer.echo("--keep-images: images are kept as they are; report --no-images leaves them out", err=True)
    if not prepared.complete:
        from safemed_eval.runs import read_records
        from safemed_eval.runs.images import Keeper
        from safemed_eval.runs.meter import Meter, passes_of
        from safemed_eval.runs.work import units
        from safemed_eval.runs.work.evaluate import group_size

        items, gradients = prepared.data.items, "gradients" in needs
        keeper = Keeper(prepared.place, items, keep_images, quantized=quantize, called=prepared.called)
        make = partial(
            _evaluation,
            canvas=prepared.canvas,
            seed=run.seed,
            wanted=run.batch,
            gradients=gradients,
            quantize=quantize,
            wants=keeper.wants,
            voting=voting,
        )
        with started(
            prepared,
            model,
            run,
            make,
            needs=needs,
            surrogates={
                name: surrogate_loading(one, model, prepared, attacks.needs_of(chosen.values(), name))
                for name, one in surrogates.items()
            },
            store=keeper,
        ) as (team, folder):
            keeper.resume(read_records(prepared.place) if keep_images else ())
            asked: list[Attack | str] = [*chosen.values(), *conditions[len(chosen) :]]
            size = group_size(team.ready.batch, prepared.canvas)
            groups = list(units.groups(items, asked, size, folder.done, voting))
            meter = Meter(passes_of(groups), lambda: team.forwards)
            found = keeper.following(records for _, records in meter.following(team.do(groups)))
            write_all("evaluating", team, folder, prepared, meter, found)
    end_where_nothing_was_measured(show_run(prepared.place, json=run.json))


def _evaluation(
    loaded: Loaded,
    *,
    wants: Callable[[Item, str, bool], bool],
    wanted: int | Literal["auto"] | None,
    gradients: bool,
    canvas: Canvas,
    **settings: Any,
) -> Evaluation:
    """The work, in whichever process the model has been loaded."""
    from safemed_eval.models.batch import batch_of
    from safemed_eval.runs.work.evaluate import Evaluation

    def keep(item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor, wrong: bool) -> None:
        if wants(item, condition, wrong):
            loaded.keep(item, condition, clean, attacked)

    batch = batch_of(wanted, _BATCH, loaded.model, canvas.size, gradients=gradients)
    return Evaluation(
        model=loaded.model, surrogates=loaded.surrogates, keep=keep, canvas=canvas, batch=batch, **settings
    )


def _voting(smooth: str | None, chosen: Iterable[Attack], *, without_noise: Mapping[str, bool]) -> Voting | None:
    """What --smooth asks for; refused with attacks that mistake noise for success."""
    from safemed_eval.smoothing import Voting

    if smooth is None:
        return None
    voting = grammar.build(Voting, grammar.split(f"smooth:{smooth}")[1], "--smooth")
    for option in (option for option, given in without_noise.items() if given):
        raise SpecError(f"{option} asks the model without noise; leave it out, or --smooth")
    for one in chosen:
        try:
            _ = one.on_smoothed
        except ValueError as error:
            raise SpecError(f"--attack {one}: {error}") from None
    return voting
