"""Our PGD against ART's and torchattacks', in turns on the same model: `python benchmarks/pgd.py`.

Measures gradient steps/s of the plain algorithm, and the time of an attack that replaces flipped items by new ones.
torchattacks pins an old `requests`: install it by `pip install --no-deps torchattacks`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from _common import Wrapped, art_device, in_turns, machine, models, phantom, rate_of, ratio

from safemed_eval import attacks
from safemed_eval.data import canvas_of
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator

EPS = 4 / 255


def race(name: str, model: Waist, canvas: torch.Tensor, questions: list, at_once: int, steps: int) -> None:
    import torchattacks
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    rows, width = len(canvas), len(questions[0].options)
    wrapped = Wrapped(model, questions[0])
    labels = model.classify(questions)(canvas).argmax(1)
    estimator = PyTorchClassifier(
        wrapped,
        torch.nn.NLLLoss(),
        tuple(canvas.shape[1:]),
        width,
        clip_values=(0.0, 1.0),
        device_type=art_device(model),
    )
    settings = {"eps": EPS, "eps_step": EPS / 4, "num_random_init": 0, "batch_size": at_once, "verbose": False}
    theirs = ProjectedGradientDescent(estimator, max_iter=steps, **settings)
    torchs = torchattacks.PGD(wrapped, eps=EPS, alpha=EPS / 4, steps=steps, random_start=False)
    images, one_hot = canvas.cpu().numpy(), np.eye(width)[labels.cpu().numpy()]
    plain = attacks.parse(f"pgd:eps=4/255,steps={steps},step=0.25,start=zero,early_stop=no")
    leaving = attacks.parse(f"pgd:eps=4/255,steps={steps},step=0.25,start=zero")

    def ours(attack: attacks.Attack) -> attacks.Attacked:
        streams = [generator(model.device, row) for row in range(rows)]
        return attack(model.classify(questions, at_once=at_once), canvas, labels, streams)

    def torchs_in_batches() -> None:
        for start in range(0, rows, at_once):
            torchs(canvas[start : start + at_once], labels[start : start + at_once])

    sides = {
        "ours": partial(rate_of, partial(ours, plain), rows * steps),
        "ART": partial(rate_of, partial(theirs.generate, images, one_hot), rows * steps),
        "torchattacks": partial(rate_of, torchs_in_batches, rows * steps),
        "ours, rows leave": partial(rate_of, partial(ours, leaving), rows * steps),
    }
    rates = in_turns(sides, 3)
    attacked = ours(leaving)
    flipped = float((model.classify(questions)(attacked.canvas).argmax(1) != labels).float().mean())
    taken = sum(attacked.steps)
    print(f"\n{name}: {rows} rows, {at_once} at once, {steps} steps; {flipped:.0%} flipped, {taken} steps taken")
    for side, rate in rates.items():
        figure = f"{np.median(rate):8.1f} steps/s" if side != "ours, rows leave" else " " * 16
        first, second = ratio(rates["ours"], rate), ratio(rates["ours, rows leave"], rate)
        print(f"  {side:18} {figure}   ours / it {first:5.2f}   time of it / rows leave {second:5.2f}")


def main() -> None:
    print(machine())
    with models() as loaded:
        chosen, place = phantom(48)
        shipped, _ = loaded["builtin:sft"]
        canvases = torch.stack([canvas_of(item, place) for item in chosen]).to(shipped.device)
        # The other libraries attack one question at a time, so all images get the first one.
        race("builtin:sft", shipped, canvases, [chosen[0].question] * len(canvases), 16, 10)
        grown, size = loaded["small"]
        noise = torch.rand((8, 3, *size), generator=torch.Generator().manual_seed(0)).to(grown.device)
        race("small", grown, noise, [chosen[0].question] * len(noise), 4, 4)


if __name__ == "__main__":
    main()
