"""The function `certify`: certified radii by randomized smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from safemed_eval import grammar
from safemed_eval.api._start import (
    Options,
    Out,
    Prepared,
    Written,
    donors_for,
    finished,
    prepare,
    started,
    write_all,
)
from safemed_eval.codec import typed
from safemed_eval.core import DEFAULT_NOISE, BatchSize, Domain, Need, OptionOrder
from safemed_eval.data import AnyData, choice_of
from safemed_eval.errors import SpecError
from safemed_eval.models import AnyModel
from safemed_eval.runs.spec import CertifySpec
from safemed_eval.smoothing import (
    SEQUENTIAL,
    Budget,
    DonorVote,
    Exhaustive,
    Falsification,
    Patch,
    PatchSearch,
    Sequential,
    Smoothing,
    two_classes,
)
from safemed_eval.smoothing.noise import parse

if TYPE_CHECKING:
    import torch

    from safemed_eval.data import Canvas, Donor
    from safemed_eval.report.run import Run
    from safemed_eval.runs.work.certify import Certification, Falsify
    from safemed_eval.runs.workers import Loaded

BATCH, CPU_BATCH = 64, 16
"""Default batch sizes on a GPU and on the CPU."""


@typed
def certify(
    model: AnyModel,
    data: AnyData,
    *,
    sigma: float | str | None = None,
    noise: str = DEFAULT_NOISE,
    sampling: Literal["fixed", "sequential"] = "fixed",
    n0: int | None = None,
    n: int | None = None,
    alpha: float | None = None,
    radii: str = grammar.RADII,
    stop_when_wrong: bool = False,
    falsify: bool = False,
    option_order: OptionOrder = "data",
    grounding: bool = False,
    domain: Domain = "canvas",
    batch_size: BatchSize = None,
    seed: int = 0,
    ray: str | None = None,
    workers: int | None = None,
    out: Out = None,
    pseudonymize: str | Path | None = None,
    baseline: str | Path | None = None,
) -> Run:
    """Certify radii by randomized smoothing, by imaging modality and question type.

    >>> import safemed_eval as se
    >>> cert = se.certify("builtin:sft", se.load_data("phantom", limit=2), sigma=0.25, n0=10, n=20)
    >>> len(cert.frame())
    2

    Args:
        model, data: as in `evaluate`.
        sigma: standard deviation of the noise, in [0, 1] pixel units on the canvas: 0.25, or a fraction "64/255".
        noise: kind of noise, which decides what a radius is: "gaussian" (L2), "uniform" (L1), "gamma", "brightness",
            "contrast" (of the display); "patch" shows bands of columns, each once, and draws nothing (see below);
            "float32" is Gaussian noise as other tools draw it. See docs/certificates.md.
        sampling: "fixed": n0 noisy copies select an answer, and n more bound its probability. "sequential": copies are
            drawn, n at most, until it is decided which of `radii` are certified for the gold answer.
        n0: noisy copies that select the class, 100 by default; fixed only.
        n: noisy copies that bound its probability, 1,000 by default; for "sequential" an upper limit.
        alpha: probability that one certificate is false, 0.001 by default.
        radii: radii at which certified accuracy is shown, and that sequential draws decide; the suffix s means times
            sigma.
        stop_when_wrong: skip the estimation if the selected answer is wrong; the item is not certified.
        falsify: attack every certificate within its radius; `run.sound` is False if more are refuted than chance
            allows.
        option_order: "data": every noisy copy is asked with the options in the order of the data. "random": each in an
            order of its own, so that the smoothed model prefers no letter, and its certificates hold for every order.
        grounding: let 100 noisy copies of another patient's image vote as well, where the gold answer is selected, to
            tell how many certificates depend on the image.
        domain: "canvas": radii are measured on the canvas. "file": on the image at its own size, whose resize to the
            canvas is then neither clipped nor rounded to 8 bits; `run.frame()` has the canvas radius, too.
        batch_size, seed, ray, workers, out, pseudonymize, baseline: as in `evaluate`.

    With noise="patch:size=32,band=48,stride=4" radii are sizes of patches in canvas pixels, and there is neither sigma,
    nor sampling, n0, n or alpha.

    Returns:
        The run: `run.curve()`, `run.frame()`, `run.plot()`, `run.summary`.
    Raises:
        As `evaluate`.
    Source:
        Cohen et al. 2019 (arXiv:1902.02918), CERTIFY; see `smoothing.certify` for what differs.
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
    std = grammar.number(sigma, "--sigma") if isinstance(sigma, str) else sigma
    budget = budget_from(noise, std, sampling, n0, n, alpha, radii)
    if isinstance(budget, Exhaustive):
        data = choice_of(data)
        _refuse_for_patches(
            budget, data.canvas, option_order=option_order, grounding=grounding, stop_when_wrong=stop_when_wrong
        )
    if stop_when_wrong and isinstance(budget, Sequential):
        raise SpecError("--stop-when-wrong: has no effect with --sampling sequential, which asks for gold only")
    if option_order not in get_args(OptionOrder):
        raise SpecError(f"--option-order {option_order}: write {' or '.join(get_args(OptionOrder))}")
    if domain == "file" and budget.noise != DEFAULT_NOISE:
        raise SpecError(f"--domain file --noise {budget.noise}: radii of the file are derived for {DEFAULT_NOISE} only")
    label = f"{budget.noise}-" * (budget.noise != DEFAULT_NOISE)
    label += "exhaustive" if isinstance(budget, Exhaustive) else f"sigma{budget.sigma:g}"
    label += "-sequential" * isinstance(budget, Sequential)
    prepared = prepare(
        CertifySpec,
        model,
        data,
        options,
        label=label + "-random-order" * (option_order == "random") + "-file" * (domain == "file"),
        smoothing=asdict(budget),
        sampling=budget.sampling,
        stop_when_wrong=stop_when_wrong,
        falsify=(PatchSearch() if isinstance(budget, Exhaustive) else Falsification()) if falsify else None,
        option_order=option_order,
        grounding=DonorVote() if grounding else None,
        domain=domain,
    )
    run = finished(prepared, _certify)
    return run if isinstance(budget, Exhaustive) and radii == grammar.RADII else run.at(radii)


def budget_from(
    noise: str, sigma: float | None, sampling: str, n0: int | None, n: int | None, alpha: float | None, radii: str
) -> Budget:
    """Build the budget from the options, or raise SpecError."""
    parsed = parse(noise, sigma)
    kind = str(parsed)
    if isinstance(parsed, Patch):
        given = {"--n0": n0 is not None, "--n": n is not None, "--alpha": alpha is not None}
        for option in (name for name, is_given in {"--sampling": sampling == SEQUENTIAL, **given}.items() if is_given):
            raise SpecError(f"{option}: has no effect with --noise patch, which draws nothing: every band votes once")
        budget = Exhaustive(noise=kind)
        budget.points(radii)
        return budget
    assert sigma is not None
    points, n, alpha = grammar.radii(radii, sigma), 1000 if n is None else n, 0.001 if alpha is None else alpha
    try:
        if sampling != SEQUENTIAL:
            return Smoothing(noise=kind, sigma=sigma, n0=100 if n0 is None else n0, n=n, alpha=alpha)
        if n0 is not None:
            raise SpecError("--n0: has no effect with --sampling sequential, which selects no class")
        return Sequential(noise=kind, sigma=sigma, radii=points, n=n, alpha=alpha)
    except ValueError as error:
        raise SpecError(f"certify: {error}") from None


def _refuse_for_patches(
    budget: Exhaustive, canvas: Canvas, *, option_order: str, grounding: bool, stop_when_wrong: bool
) -> None:
    """Refuse what has no meaning for certificates against patches, and a canvas on which none is possible."""
    if option_order != "data":
        raise SpecError(f"--option-order {option_order}: needs copies that are drawn; --noise patch draws none")
    if grounding:
        raise SpecError("--grounding: needs copies that are drawn; --noise patch draws none")
    if stop_when_wrong:
        raise SpecError("--stop-when-wrong: has no effect with --noise patch, which draws nothing to stop")
    refuse_bands(budget, canvas)


def refuse_bands(budget: Exhaustive, canvas: Canvas) -> None:
    """Raise SpecError for a canvas on which nothing can be certified."""
    try:
        budget.refuse_canvas(canvas.size)
    except ValueError as error:
        raise SpecError(f"--noise {budget.noise}: {error}") from None


def _certify(prepared: Prepared) -> Written:
    """Compute the missing records."""
    from safemed_eval.runs.images import keep_refuting
    from safemed_eval.runs.meter import Meter
    from safemed_eval.runs.work.falsify import NEEDS
    from safemed_eval.runs.work.units import Certificates

    spec, place = prepared.spec, prepared.place
    assert isinstance(spec, CertifySpec)
    donors = donors_for(prepared.data, spec.seed) if spec.grounding else {}
    make = partial(_certification, canvas=prepared.data.canvas, spec=spec, donors=donors)
    needs: dict[Need, str] = dict.fromkeys(NEEDS, "--falsify") if spec.falsify else {}

    def store(item: str, share: float, canvas: torch.Tensor) -> None:
        if place:
            keep_refuting(place, prepared.called(item), share, canvas)

    with started(prepared, make, needs=needs, store=store) as (team, folder):
        certificates = Certificates(
            items=prepared.data.items,
            smoothing=spec.budget,
            batch=team.ready.batch,
            done=folder.done,
            split=prepared.options.ray is not None and not spec.stop_when_wrong,
            falsify=spec.falsify,
            grounding=spec.grounding,
            width=spec.canvas_size[1] if spec.canvas_size else None,
        )
        meter = Meter(certificates.passes, lambda: team.forwards)
        records = certificates.records(meter.following(team.do(certificates.units())))
        write_all("certifying", team, folder, prepared, meter, records)
    return folder


def _certification(loaded: Loaded, *, canvas: Canvas, spec: CertifySpec, donors: Mapping[str, Donor]) -> Certification:
    """Build the work, in the process that has loaded the model."""
    from safemed_eval.models.batch import batch_of
    from safemed_eval.runs.work.certify import Certification
    from safemed_eval.runs.work.falsify import Falsifier
    from safemed_eval.runs.work.falsify_patch import PatchFalsifier

    waist = loaded.model
    falsifier: Falsify | None = None
    falsify, budget = spec.falsify, spec.budget
    default = CPU_BATCH if waist.device.type == "cpu" else BATCH
    batch = batch_of(spec.batch_size, default, waist, canvas.size, gradients=False)
    if isinstance(falsify, PatchSearch) and isinstance(budget, Exhaustive):
        falsifier = PatchFalsifier(
            model=waist, spec=falsify, patch=budget.kind, seed=spec.seed, batch=batch, keep=loaded.keep
        )
    elif isinstance(falsify, Falsification) and not isinstance(budget, Exhaustive):
        falsifier = Falsifier(
            model=waist,
            spec=falsify,
            noise=budget.kind,
            two_classes=two_classes(budget),
            seed=spec.seed,
            batch=batch,
            keep=loaded.keep,
            option_order=spec.option_order,
        )
    return Certification(
        model=waist,
        canvas=canvas,
        smoothing=spec.budget,
        seed=spec.seed,
        batch=batch,
        falsify=falsifier,
        stop_when_wrong=spec.stop_when_wrong,
        option_order=spec.option_order,
        grounding=spec.grounding,
        domain=spec.domain,
        donors=donors,
    )
