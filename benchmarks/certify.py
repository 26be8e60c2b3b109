"""CERTIFY against four others, in turns on the same model: `python benchmarks/certify.py`.

a. ART's PyTorchRandomizedSmoothing.certify.
b. A plain implementation of Cohen et al.'s CERTIFY: torch.randn_like, argmax, counts in numpy.
c. A typical script around a VLM: each noisy copy becomes a picture, goes through the processor, and the model generates
   its answer, to its end or up to 16 tokens; or a single token, in a script that knows that this is the letter. (A
   picture is clamped and rounded, so its noise is no longer Gaussian.)
d. The limit: a bare loop of the model's forward passes on inputs that are ready on the device.

All use the same n0, n and batch. The others run this package's model, with its shortcuts or without them. The benchmark
also shows where the time goes, if the shortcuts change a vote, and if memory grows with n.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from _common import Wrapped, art_device, in_turns, machine, models, phantom, rate_of, ratio
from statsmodels.stats.proportion import proportion_confint

from safemed_eval import stats
from safemed_eval.core import Item, Question
from safemed_eval.data import canvas_of
from safemed_eval.models.checkpoints.processor import picture, pixel_inputs
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.toy import brightness
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Float32, Gaussian, Smoothing
from safemed_eval.smoothing.certify import certify, count_votes
from safemed_eval.smoothing.copies import noisy_copies

SIGMA, ALPHA = 0.25, 0.001


def ours(
    model: Waist,
    item: str,
    canvas: torch.Tensor,
    question: Question,
    n0: int,
    n: int,
    batch: int,
    noise: str = "gaussian",
) -> object:
    spec = Smoothing(noise=noise, sigma=SIGMA, n0=n0, n=n, alpha=ALPHA)
    streams = partial(generator, model.device, 0, "certify", item)
    return certify(model.vote(question), canvas, spec, rng=streams, batch=batch)


def art(model: Waist, canvas: torch.Tensor, question: Question, n0: int, n: int, batch: int) -> tuple[int, float]:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        model=Wrapped(model, question),
        loss=torch.nn.NLLLoss(),
        input_shape=tuple(canvas.shape),
        nb_classes=len(question.options),
        sample_size=n0,
        scale=SIGMA,
        alpha=ALPHA,
        device_type=art_device(model),
    )
    answers, radii = smoothed.certify(canvas.cpu().numpy()[None], n=n, batch_size=batch)
    return int(answers[0]), float(radii[0])


@torch.no_grad()
def cohen(model: Waist, canvas: torch.Tensor, question: Question, n0: int, n: int, batch: int) -> tuple[int, float]:
    network = Wrapped(model, question)

    def sample(left: int) -> np.ndarray:
        counts = np.zeros(len(question.options), dtype=int)
        while left > 0:
            size = min(batch, left)
            left -= size
            copies = canvas.repeat((size, 1, 1, 1))
            answers = network(copies + torch.randn_like(copies) * SIGMA).argmax(1)
            counts += np.bincount(answers.cpu().numpy(), minlength=len(counts))
        return counts

    best = int(sample(n0).argmax())
    lower = proportion_confint(int(sample(n)[best]), n, alpha=2 * ALPHA, method="beta")[0]
    return (best, SIGMA * stats.sps.norm.ppf(lower)) if lower >= 0.5 else (-1, 0.0)


@torch.no_grad()
def script(vlm: VLM, canvas: torch.Tensor, question: Question, n: int, tokens: int) -> Counter[str]:
    prompt, answers = vlm.prompt(question, vlm.asking.template.cue), Counter[str]()
    for _ in range(n):
        image = picture((canvas + SIGMA * torch.randn_like(canvas)).clamp(0, 1))
        inputs = vlm.processor(text=[prompt], images=[image], return_tensors="pt").to(vlm.device)
        ids = vlm.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        answers[vlm.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])] += 1
    return answers


@torch.no_grad()
def bare(model: torch.nn.Module, inputs: dict[str, torch.Tensor], calls: int) -> None:
    for _ in range(calls):
        model(**inputs, use_cache=False, logits_to_keep=1)


def ready_inputs(vlm: VLM, canvas: torch.Tensor, question: Question, batch: int) -> dict[str, torch.Tensor]:
    copies = canvas + SIGMA * torch.randn((batch, *canvas.shape), device=canvas.device)
    return vlm._inputs(copies, [vlm.prompt(question, vlm.asking.template.cue)] * batch, positions=True)


def race(
    name: str, model: Waist, canvas: torch.Tensor, question: Question, n0: int, n: int, batch: int, repeats: int
) -> None:
    vlm, few = model.scorer, max(4, n // 50)
    taken, draws = vlm.shortcuts, n0 + n
    inputs = ready_inputs(vlm, canvas, question, batch)
    calls = -(-draws // batch)

    def plainly(work: Callable[[], object]) -> None:
        vlm.shortcuts = ()
        try:
            work()
        finally:
            vlm.shortcuts = taken

    arguments = (model, canvas, question, n0, n, batch)
    mine, arts, cohens = (
        partial(ours, model, name, *arguments[1:]),
        partial(art, *arguments),
        partial(cohen, *arguments),
    )
    sides = {
        "ours": lambda: rate_of(mine, draws),
        "ours, float32 noise": lambda: rate_of(partial(mine, noise="float32"), draws),
        "ours, no shortcuts": lambda: rate_of(partial(plainly, mine), draws),
        "a ART": lambda: rate_of(arts, draws),
        "a ART, no shortcuts": lambda: rate_of(partial(plainly, arts), draws),
        "b Cohen": lambda: rate_of(cohens, draws),
        "b Cohen, no shortcuts": lambda: rate_of(partial(plainly, cohens), draws),
        "c script, one token": lambda: rate_of(partial(script, vlm, canvas, question, few, 1), few),
        "c script, its answer": lambda: rate_of(partial(script, vlm, canvas, question, few, 16), few),
        "d bare": lambda: rate_of(partial(bare, vlm.model, inputs, calls), calls * batch),
    }
    rates = in_turns(sides, repeats)
    print(f"\n{name}: n0 {n0}, n {n}, batch {batch}, canvas {tuple(canvas.shape[1:])}, shortcuts: {', '.join(taken)}")
    for side, turns in rates.items():
        print(f"  {side:22} {np.median(turns):9.1f} samples/s   ours / it {ratio(rates['ours'], turns):6.2f}")
    print(f"  without shortcuts: ours / d {ratio(rates['ours, no shortcuts'], rates['d bare']):.3f}")


def profile(name: str, model: Waist, canvas: torch.Tensor, question: Question, batch: int) -> None:
    """Print how long each part of one batch of votes takes."""
    vlm, repeats = model.scorer, 5
    copies = canvas + SIGMA * torch.randn((batch, *canvas.shape), device=canvas.device)
    inputs = ready_inputs(vlm, canvas, question, batch)
    vision = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    _, call = vlm.sides.one(vlm.prompt(question, vlm.asking.template.cue), *canvas.shape[1:])
    streams = partial(generator, model.device, 0, "profile")
    parts = {
        "vote": lambda: model.vote(question)(copies),
        "noise": lambda: list(noisy_copies(canvas, Gaussian(SIGMA), batch, batch, streams)),
        "float32 noise": lambda: list(noisy_copies(canvas, Float32(SIGMA), batch, batch, streams)),
        "image processor": lambda: pixel_inputs(vlm.processor, copies, call),
        "vision tower": lambda: vlm.model.get_image_features(**vision),
        "model, all of it": lambda: bare(vlm.model, inputs, 1),
    }
    with torch.no_grad():
        rates = in_turns({key: partial(rate_of, part, batch) for key, part in parts.items()}, repeats)
    ms = {key: 1e3 * batch / float(np.median(turns)) for key, turns in rates.items()}
    print(f"\n{name}, ms a batch of {batch}: " + ", ".join(f"{key} {value:.1f}" for key, value in ms.items()))


def agreement(model: Waist, chosen: tuple[Item, ...], canvases: list[torch.Tensor], n: int, batch: int) -> None:
    """Count the votes that the shortcuts change."""
    vlm, taken, differ = model.scorer, model.scorer.shortcuts, 0
    for item, canvas in zip(chosen, canvases, strict=True):
        counts = []
        for shortcuts in (taken, ()):
            vlm.shortcuts = shortcuts
            streams = partial(generator, model.device, 0, "certify", item.id, "estimate")
            counts.append(count_votes(model.vote(item.question), canvas, Gaussian(SIGMA), n, batch, streams))
        differ += sum(abs(a - b) for a, b in zip(*counts, strict=True)) // 2
    vlm.shortcuts = taken
    print(f"\nvotes that the shortcuts change: {differ} of {n * len(chosen):,}, over {len(chosen)} items")


def memory() -> None:
    """Print the peak memory of this process for growing n, with a toy model on a canvas of 64 x 64."""
    model = Waist(brightness(), torch.device("cpu"))
    canvas, question = torch.full((3, 64, 64), 0.5), Question(text="", options=("A", "B"))
    for n in (1_000, 10_000, 100_000):
        started = time.perf_counter()
        ours(model, "memory", canvas, question, 100, n, 64)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"n {n:7,}: peak memory {peak:,.0f} MB, {time.perf_counter() - started:.1f} s")


def main() -> None:
    print(machine())
    memory()
    with models() as loaded:
        chosen, place = phantom(40)
        shipped, _ = loaded["builtin:sft"]
        canvases = [canvas_of(item, place).to(shipped.device) for item in chosen]
        race("builtin:sft", shipped, canvases[0], chosen[0].question, 100, 1000, 64, 7)
        profile("builtin:sft", shipped, canvases[0], chosen[0].question, 64)
        agreement(shipped, chosen, canvases, 500, 64)
        grown, size = loaded["small"]
        canvas = torch.rand((3, *size), generator=torch.Generator().manual_seed(0)).to(grown.device)
        race("small", grown, canvas, chosen[0].question, 8, 24, 16, 3)
        profile("small", grown, canvas, chosen[0].question, 16)


if __name__ == "__main__":
    main()
