"""One of each: an attack, a format of data, a kind of model, a kind of noise, a figure."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from safemed_eval.attacks import Attacked, BallAttack, Facts
from safemed_eval.core import Item
from safemed_eval.data import DataSet
from safemed_eval.data.records import gold_index, make_question
from safemed_eval.models import Source
from safemed_eval.smoothing.noise import Parameter


@dataclass(frozen=True, kw_only=True)
class Darken(BallAttack):  # --attack darken:eps=8/255
    facts = Facts(role="control", aims_at=None)

    def search(self, problem):
        return Attacked(canvas=problem.on_grid(problem.canvas - self.eps, self.threat), steps=[0] * len(problem))


class Piped:  # --data piped:FILE, with lines such as 0.png|Which organ?|Liver|Lung|Liver
    @staticmethod
    def load(place, root):
        rows = [line.split("|") for line in place.read_text(encoding="utf-8").splitlines()]
        return DataSet(items=tuple(item(str(n), root or place.parent, *row) for n, row in enumerate(rows, start=1)))


def item(key, root, image, text, gold, *options):
    label = gold_index(gold, options)
    return Item(id=key, question=make_question(text, options), label=label, image=image, root=root)


@dataclass(frozen=True, kw_only=True)
class Threshold(Source):  # --model threshold:0.4 answers with the first option where the mean of the pixels is higher
    fingerprint = property(lambda self: {"name": self.name})
    resolve = classmethod(lambda cls, name, allowed: cls(name=name))
    load = lambda self, device, **options: self  # noqa: E731

    def scores(self, canvas, questions):
        rows = zip(canvas.mean((1, 2, 3)) - float(self.name.partition(":")[2]), questions, strict=True)
        return [bright * bright.new_tensor([1.0] + [-1.0] * (len(q.options) - 1)) for bright, q in rows]


@dataclass(frozen=True)
class Shading(Parameter):  # --noise shading --sigma 0.1: light that falls from the right, or from the left
    name, randomness = "shading", "the light on the right edge in [0, 1] pixel units"
    radius_name, unit = "shading radius", "[0, 1] pixel units"

    def apply(self, canvas, drawn):  # slopes add up, as a `Parameter` must
        return canvas + drawn * torch.linspace(-1, 1, canvas.shape[-1], device=canvas.device)

    def words(self, radius):
        return f"any light up to {radius:.2g} from one side"


def overview(runs):
    for run in runs:
        figure = Figure(layout="constrained")
        figure.add_subplot().bar(*zip(*run.accuracy().drop(columns="n").loc["all"].items(), strict=True))
        yield f"overview-{run.kind}", figure
