"""The function `evaluate`: accuracy, clean and under attack."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemed_eval import attacks as attack_specs
from safemed_eval import grammar
from safemed_eval.api._start import (
    Options,
    Out,
    Prepared,
    Written,
    donors_for,
    finished,
    loading_of,
    prepare,
    started,
    write_all,
)
from safemed_eval.attacks import Attack
from safemed_eval.codec import Json, encode, typed
from safemed_eval.core import CIRCULAR, CLEAN, OFFICIAL, BatchSize, Domain, Item
from safemed_eval.data import AnyData
from safemed_eval.errors import SpecError
from safemed_eval.models import AnyModel, Model, find_model
from safemed_eval.progress import progress, status
from safemed_eval.runs import checked
from safemed_eval.runs.spec import EvaluateSpec
from safemed_eval.runs.work.fit import Fitted, fitted_for, half_of
from safemed_eval.seeds import seed_of
from safemed_eval.smoothing import Voting
from safemed_eval.threat import MASK

if TYPE_CHECKING:
    import torch

    from safemed_eval.data import Canvas
    from safemed_eval.report.run import Run
    from safemed_eval.runs.work.evaluate import Evaluation
    from safemed_eval.runs.workers import Loaded, Team

_BATCH = 16
_log = logging.getLogger("safemed_eval")


@typed
def evaluate(
    model: AnyModel,
    data: AnyData,
    *,
    attacks: Sequence[str | Attack] = (),
    quantize: bool = False,
    keep_images: int = 0,
    smooth: str | Voting | None = None,
    official: bool = False,
    circular: bool = False,
    grounding: bool = False,
    planted: int = 0,
    domain: Domain = "canvas",
    batch_size: BatchSize = None,
    seed: int = 0,
    ray: str | None = None,
    workers: int | None = None,
    out: Out = None,
    pseudonymize: str | Path | None = None,
    baseline: str | Path | None = None,
) -> Run:
    """Measure accuracy, clean and under attack, by imaging modality and question type.

    >>> import safemed_eval as se
    >>> run = se.evaluate("builtin:sft", se.load_data("phantom", limit=8), attacks=["fgsm:eps=4/255"])
    >>> run.accuracy().columns.tolist()[:3]
    ['clean', 'fgsm:eps=4/255', 'n']

    Args:
        model: from `load_model`, or what that takes.
        data: from `load_data`, or what that takes.
        attacks: specs such as "pgd:eps=4/255,steps=10"; `safemed-eval evaluate --help` lists them. Clean is always
            included.
        quantize: keep attacked canvases on 8-bit grey levels, so that an image file of the canvas's size can hold them.
        keep_images: store the images of this many items per attack, lossless, in the run folder, first those that
            the attack turned from right to wrong.
        smooth: evaluate and attack the smoothed model: "sigma=0.25,n=100".
        official: also answer through the checkpoint's unmodified 8-bit path, images at their own size.
        circular: also ask about each clean image with all K rotations of its K options; an item counts as correct if
            every rotation is answered correctly.
        grounding: also ask about another patient's image, a blank one, and none, to tell how many right answers depend
            on the image.
        planted: test on this many items whether each attack by gradients is able to find anything: a region that it
            must find is planted around their images; see `runs.work.planted`. The checklist says what came of it.
        domain: "canvas": eps bounds the change of the canvas. "file": that of the image at its own size, which is kept
            on 8-bit grey levels and then shown on the canvas as any file is; with `official` attacked files are also
            shown to the checkpoint's own path.
        batch_size: rows per forward pass, halved when memory runs out; "auto" measures the best.
        seed: seed of random starts and noise, which are drawn per item: results do not depend on batches or workers.
        ray: "local" or the address of a cluster: share the work among Ray's workers.
        workers: number of Ray's workers; by default one per GPU, else one for two cores.
        out: the run folder; the same call resumes a stopped run. "auto": a name below runs/. None: the run is kept in
            memory.
        pseudonymize: file with a key, under which ids, paths and texts are replaced by pseudonyms.
        baseline: a run folder that `compare` will compare this run with: where it could not, nothing is computed.
    Returns:
        The run: `run.accuracy(by="modality")`, `run.frame()`, `run.plot()`, `run.summary`.
    Raises:
        SpecError, DataError, CheckpointError, RunError: the message says what is wrong, where, and what to do.
        Stopped: Ctrl-C. The records computed so far are in `out`.
    """
    options = Options(
        batch_size=batch_size,
        seed=seed,
        ray=ray,
        workers=workers,
        out=out,
        pseudonymize=pseudonymize,
        baseline=baseline,
    )
    chosen = {str(attack): attack for attack in attack_specs.parse_all([CLEAN, *map(str, attacks)])}
    judged = model if isinstance(model, Model) else find_model(model)
    quantize = quantize or domain == "file"
    _refuse_senseless(judged, chosen.values(), official=official, keep_images=keep_images, out=out)
    if planted:
        _refuse_untestable(chosen.values(), planted, smoothed=smooth is not None)
    without_noise = {"--official": official, "--circular": circular, "--domain file": domain == "file"}
    voting = _voting(smooth, chosen.values(), without_noise=without_noise)
    surrogates = {
        name: _surrogate(name, judged, smoothed=voting is not None)
        for attack in chosen.values()
        for name in attack.surrogates
    }
    described = {spec: attack.described | _identities(attack, surrogates) for spec, attack in chosen.items()}
    extra = [*[OFFICIAL] * official, *[CIRCULAR] * circular, *["grounding"] * grounding, *["file"] * (domain == "file")]
    smoothed = [f"smooth-{smooth if isinstance(smooth, str) else grammar.write('', voting)}"] if voting else []
    prepared = prepare(
        EvaluateSpec,
        judged,
        data,
        options,
        chosen=chosen.values(),
        label="-".join([*[*chosen][1:], *extra, *smoothed]),
        domain=domain,
        masked=next((f"--attack {attack}" for attack in chosen.values() if attack.region == MASK), None),
        attacks=described,
        quantize=quantize,
        official=official,
        circular=circular,
        keep_images=keep_images,
        smooth=voting,
        grounding=grounding,
        planted=planted,
    )
    if keep_images and prepared.names:
        _log.warning("--keep-images: images are kept as they are; report --no-images leaves them out")
    fits = any(attack.fits for attack in chosen.values())
    fitted_on = half_of(prepared.data.items, seed) if fits else ()
    return finished(prepared, partial(_answer, chosen=chosen, surrogates=surrogates, fitted_on=fitted_on))


def _answer(
    prepared: Prepared,
    *,
    chosen: Mapping[str, Attack],
    surrogates: Mapping[str, Model],
    fitted_on: Sequence[Item],
) -> Written:
    """Compute the missing records."""
    from safemed_eval.runs.images import Keeper
    from safemed_eval.runs.meter import Meter, passes_of
    from safemed_eval.runs.work import units
    from safemed_eval.runs.work.evaluate import group_size

    spec, items = prepared.spec, prepared.data.items
    assert isinstance(spec, EvaluateSpec)
    needs = attack_specs.needs_of(chosen.values()) | ({"features": "--planted"} if spec.planted else {})
    keeper = Keeper(
        prepared.place, items, spec.keep_images, quantized=spec.quantize, called=prepared.called, chosen=chosen
    )
    make = partial(
        _evaluation,
        canvas=prepared.data.canvas,
        seed=spec.seed,
        wanted=spec.batch_size,
        gradients="gradients" in needs,
        quantize=spec.quantize,
        domain=spec.domain,
        official=spec.official and spec.domain == "file",
        wants=keeper.wants,
        voting=spec.smooth,
        donors=donors_for(prepared.data, spec.seed) if spec.grounding else {},
        fitted_on=fitted_on,
    )
    loadings = {
        name: loading_of(surrogate, prepared, attack_specs.needs_of(chosen.values(), name))
        for name, surrogate in surrogates.items()
    }
    with started(prepared, make, needs=needs, surrogates=loadings, store=keeper) as (team, folder):
        fits = [attack for attack in chosen.values() if attack.fits]
        with status(f"fitting {', '.join(map(str, fits))}") if fits else nullcontext():
            fitted = fitted_for(
                fits,
                items,
                fitted_on,
                fit=partial(_fit, team),
                place=prepared.place,
                done=folder.done,
            )
        if spec.keep_images:
            keeper.resume(checked(*folder.contents(), str(prepared.place))[1])
        if spec.planted and not folder.contents()[0].get("planted"):
            folder.amend({"planted": _plant(team, items, chosen.values(), spec)})
        conditions: list[Attack | str] = [chosen.get(name, name) for name in spec.conditions]
        size = group_size(team.ready.batch, prepared.data.canvas, spec.domain)
        groups = list(units.groups(items, conditions, size, folder.done, spec.smooth, fitted))
        meter = Meter(passes_of(groups), lambda: team.forwards)
        records = keeper.following(records for _, records in meter.following(team.do(groups)))
        write_all("evaluating", team, folder, prepared, meter, records)
    return folder


def _plant(team: Team, items: Sequence[Item], chosen: Iterable[Attack], spec: EvaluateSpec) -> list[Json]:
    """Test the attacks on some of the items, drawn by the run's seed."""
    from safemed_eval.runs.tally import Outcome, Tally
    from safemed_eval.runs.work.units import Planted

    drawn = sorted(items, key=lambda item: seed_of(spec.seed, "planted", item.id))[: spec.planted]
    outcomes: dict[str, list[Outcome]] = {str(attack): [] for attack in chosen if attack.can_be_planted}
    units = [Planted(attack=attack, item=item) for attack in chosen if str(attack) in outcomes for item in drawn]
    with progress("planting", transient=True) as tick:
        for number, (unit, outcome) in enumerate(team.do(units), start=1):
            assert isinstance(unit, Planted)
            outcomes[str(unit.attack)].append(outcome)
            tick(number, len(units))
    return [encode(Tally.of(attack, told)) for attack, told in outcomes.items()]


def _fit(team: Team, attack: Attack) -> Fitted:
    from safemed_eval.runs.work.units import Fit

    fitted: Fitted
    ((_, fitted),) = team.do([Fit(attack=attack)])
    return fitted


def _evaluation(
    loaded: Loaded,
    *,
    wants: Callable[[Item, str, bool], bool],
    wanted: BatchSize,
    gradients: bool,
    canvas: Canvas,
    domain: Domain,
    **settings: Any,
) -> Evaluation:
    """Build the work, in the process that has loaded the model."""
    from safemed_eval.data.file_path import FilePath
    from safemed_eval.models.batch import batch_of
    from safemed_eval.runs.work.evaluate import Evaluation

    def keep(item: Item, condition: str, clean: torch.Tensor, attacked: torch.Tensor, wrong: bool) -> None:
        if wants(item, condition, wrong):
            loaded.keep(item, condition, clean, attacked)

    batch = batch_of(wanted, _BATCH, loaded.model, canvas.size, gradients=gradients)
    model, surrogates = loaded.model, loaded.surrogates
    if domain == "file":
        front, canvas = FilePath(canvas), replace(canvas, size=None)
        model, surrogates = model.behind(front), {name: other.behind(front) for name, other in surrogates.items()}
    return Evaluation(model=model, surrogates=surrogates, keep=keep, canvas=canvas, batch=batch, **settings)


def _refuse_senseless(model: Model, chosen: Iterable[Attack], *, official: bool, keep_images: int, out: Out) -> None:
    if official and not model.source.has_official_path:
        raise SpecError("--official: only a transformers checkpoint has an official 8-bit path")
    if keep_images < 0:
        raise SpecError(f"--keep-images {keep_images}: write a number of items")
    if keep_images and out is None:
        raise SpecError("--keep-images: are kept in the run folder; name one with --out")
    needs = attack_specs.needs_of(chosen)
    if "texts" in needs and model.source.takes_prompts and model.asking.readout == "choice":
        raise SpecError(f"{needs['texts']}: is for models that write; add --readout generate, or use pgd")


def _identities(attack: Attack, surrogates: Mapping[str, Model]) -> dict[str, object]:
    """The identities of the models that an attack searches, for its entry in the run's spec."""
    identities = [surrogates[name].source.identity for name in attack.surrogates]
    if len(identities) > 1:
        return {"surrogates": identities}
    return {"surrogate": identities[0]} if identities else {}


def _refuse_untestable(chosen: Iterable[Attack], planted: int, *, smoothed: bool) -> None:
    """Raise SpecError where `planted` cannot be done."""
    if planted < 0:
        raise SpecError(f"--planted {planted}: write a number of items")
    if smoothed:
        raise SpecError("--planted tests attacks on the model without noise; leave it out, or --smooth")
    if not any(attack.can_be_planted for attack in chosen):
        raise SpecError(
            f"--planted: no attack of this run follows gradients of the model's scores; add --attack "
            f"{attack_specs.example_of(strength=2)}"
        )


def _surrogate(name: str, judged: Model, *, smoothed: bool) -> Model:
    """Find the model that a transfer attack searches; it is loaded like the evaluated one, but asked for a letter.

    It has neither denoiser nor noise, so that a defended model may be attacked through itself.
    """
    if name == judged.source.name and not (smoothed or judged.source.denoiser):
        raise SpecError(f"--attack transfer:from={name}: is the model that is judged; name another, or use pgd")
    asks = judged.given.template if judged.source.takes_prompts else None
    surrogate = find_model(
        name,
        device=judged.device,
        dtype=judged.dtype,
        attn=judged.attn,
        device_map=judged.device_map,
        compile=judged.compile,
        trust_remote_code=judged.allowed.trust_remote_code,
        allow_pickle=judged.allowed.allow_pickle,
        offline=judged.allowed.offline,
    )
    if asks and surrogate.source.takes_prompts and not surrogate.source.template:  # else by its own template
        return replace(surrogate, asking=replace(surrogate.asking, template=asks))
    return surrogate


def _voting(
    smooth: str | Voting | None, chosen: Iterable[Attack], *, without_noise: Mapping[str, bool]
) -> Voting | None:
    """Parse `smooth`, and refuse it together with attacks that mistake noise for success."""
    if smooth is None:
        return None
    if isinstance(smooth, str):
        smooth = grammar.build(Voting, grammar.split(f"smooth:{smooth}")[1], "--smooth")
    for option in (option for option, given in without_noise.items() if given):
        raise SpecError(f"{option} asks the model without noise; leave it out, or --smooth")
    for attack in chosen:
        try:
            _ = attack.on_smoothed
        except ValueError as error:
            raise SpecError(f"--attack {attack}: {error}") from None
    return smooth
