"""The pictures of these pages, made by the package itself: python docs/concepts/pictures.py [FOLDER]

They show builtin:sft and the images of phantom; a minute on a CPU. PNG files go to docs/concepts, or to FOLDER.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import safemed_eval as se
from safemed_eval import attacks, stats
from safemed_eval.core import Item
from safemed_eval.data import Reader
from safemed_eval.models.waist import Waist
from safemed_eval.report.compare import Rules, judge
from safemed_eval.report.drawing.style import style
from safemed_eval.seeds import generator
from safemed_eval.smoothing import noise
from safemed_eval.smoothing.copies import noisy_copies

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#666666"
SIGMA, EPS = 0.25, 4 / 255
N, ALPHA = 200, 0.001


def main(folder: Path) -> None:
    data = se.load_data("phantom", limit=24, question_type=["Disease Diagnosis"])
    model = se.load_model("builtin:sft", device="cpu")
    canvases = torch.stack([canvas for _, canvas in Reader(data.canvas).read(data.items)])
    waist, items = model.waist, list(data.items)
    with style():
        figures = {
            "pipeline": pipeline(),
            "attacked": attacked(waist, items, canvases),
            "votes": votes(waist, items, canvases),
            "radius": radius(),
            "grounding": grounding(waist, items, canvases),
            "intervals": intervals(),
            "verdicts": verdicts(),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=130, facecolor="white", bbox_inches="tight", pad_inches=0.08)


# --------------------------------------------------------------------------------------------------------- threat model


def pipeline() -> Figure:
    """Where eps, sigma and radius are measured."""
    figure = Figure(figsize=(7.2, 1.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 100), ylim=(0, 26))
    axes.axis("off")
    boxes = {
        "image file\n(any size)": 1,
        "canvas\n8-bit, H x W": 21,
        "canvas + change\nor + noise": 41,
        "the checkpoint's\nimage processor": 61,
        "model,\noption scores": 81,
    }
    for number, (text, left) in enumerate(boxes.items()):
        colour = ORANGE if number == 2 else GREY
        axes.add_patch(FancyBboxPatch((left, 9), 16, 9, boxstyle="round,pad=0.6", fc="white", ec=colour, lw=1.4))
        axes.text(left + 8, 13.5, text, ha="center", va="center", fontsize=8)
        if number:
            axes.add_patch(FancyArrowPatch((left - 3.2, 13.5), (left - 0.8, 13.5), arrowstyle="-|>", mutation_scale=9))
    axes.text(20, 22, "resized once", ha="center", fontsize=7.5, color=GREY)
    axes.text(49, 22, "eps, sigma and radius are measured here", ha="center", fontsize=8, color=ORANGE)
    axes.text(79, 4, "the checkpoint's own code; gradients flow back", ha="center", fontsize=7.5, color=GREY)
    return figure


def attacked(waist: Waist, items: Sequence[Item], canvases: torch.Tensor) -> Figure:
    """The first image whose answer PGD turns: clean, the change magnified, attacked."""
    questions = [item.question for item in items]
    labels = torch.tensor([item.label for item in items])
    classify = waist.classify(questions)
    generators = [generator("cpu", 0, "picture", item.id) for item in items]
    found = attacks.parse("pgd:eps=4/255,steps=10")(classify, canvases, labels, generators).canvas
    clean, after = (classify(pixels).exp().detach() for pixels in (canvases, found))
    fell = (clean.argmax(1) == labels) & (after.argmax(1) != labels)
    row = int(fell.nonzero()[0])
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    change = 0.5 + (found[row] - canvases[row]) / (2 * EPS)
    shown = [(canvases[row], clean[row]), (change, None), (found[row], after[row])]
    for place, (pixels, scores) in enumerate(shown, start=1):
        axes = figure.add_subplot(1, 3, place)
        picture(axes, pixels)
        axes.set_title(("clean", "the change, magnified (4/255 at most)", "attacked")[place - 1], fontsize=9)
        if scores is not None:
            best = int(scores.argmax())
            axes.set_xlabel(
                f"{items[row].question.options[best]}: {100 * float(scores[best]):.0f} %",
                fontsize=9,
                color=GREEN if best == items[row].label else ORANGE,
            )
    return figure


# --------------------------------------------------------------------------------------------------------- certificates


def votes(waist: Waist, items: Sequence[Item], canvases: torch.Tensor) -> Figure:
    """Four noisy copies of an image, the votes of all, and what follows from them."""
    kind = noise.parse("gaussian", SIGMA)
    counted = []
    for item, canvas in zip(items, canvases, strict=True):
        vote = waist.vote(item.question)
        streams = lambda chunk, item=item: generator("cpu", 0, "picture", item.id, chunk)  # noqa: E731
        copies = torch.cat([copy.clone() for copy in noisy_copies(canvas, kind, N, 40, streams)])
        counts = torch.bincount(vote(copies), minlength=len(item.question.options) + 1)
        counted.append((item, canvas, copies[:4], counts))
        if 0.7 * N < int(counts[item.label]) < 0.95 * N:
            break
    item, canvas, copies, counts = counted[-1]
    lower = stats.clopper_pearson_lower(int(counts[item.label]), N, ALPHA)
    certified = stats.certified_radius(lower, SIGMA)
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    grid = figure.add_gridspec(2, 5, height_ratios=(1, 1.2))
    for place, pixels in enumerate([canvas, *copies]):
        axes = figure.add_subplot(grid[0, place])
        picture(axes, pixels)
        axes.set_title("the image" if not place else f"noisy copy {place}", fontsize=8)
    axes = figure.add_subplot(grid[1, :])
    names = [*item.question.options, "no answer"]
    axes.barh(
        names[::-1], counts.flip(0) / N, color=[GREY] * (len(names) - 1 - item.label) + [BLUE] + [GREY] * item.label
    )
    axes.axvline(lower, color=ORANGE, ls="--")
    axes.axvline(0.5, color="black", lw=0.8)
    says = f"lower bound {lower:.2f}: radius {certified:.2f}" if certified else "lower bound below 1/2: no certificate"
    axes.text(lower - 0.01, 0.2, says, color=ORANGE, ha="right", fontsize=8.5)
    axes.set(xlim=(0, 1), xlabel=f"share of {N} noisy copies (sigma {SIGMA})")
    return figure


def radius() -> Figure:
    """The radius that a probability gives, and the largest that a number of copies can certify."""
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = np.linspace(0.5, 0.999, 200)
    left.plot(shares, [(stats.certified_radius(share, 1.0) or 0.0) for share in shares], color=BLUE)
    left.set(xlabel="lower bound of the answer's probability", ylabel="radius / sigma", xlim=(0.5, 1), ylim=(0, None))
    copies = np.unique(np.logspace(1, 5, 60).astype(int))
    for alpha, colour in ((0.01, ORANGE), (0.001, BLUE)):
        ceilings = [stats.radius_ceiling(1.0, int(n), alpha) or 0.0 for n in copies]
        right.semilogx(copies, ceilings, color=colour, label=f"alpha {alpha}")
    tens = [10**power for power in range(1, 6)]
    right.set_xticks(tens, [f"{ten:,}" for ten in tens])
    right.minorticks_off()
    right.set(xlabel="noisy copies n, all of one answer", ylabel="largest radius / sigma", ylim=(0, None))
    right.legend(frameon=False)
    return figure


# ------------------------------------------------------------------------------------------------------------ grounding


def grounding(waist: Waist, items: Sequence[Item], canvases: torch.Tensor) -> Figure:
    """An item with its own image, that of another item with the same question, and a blank one."""
    row, donor = next(
        (a, b)
        for a, item in enumerate(items)
        for b, other in enumerate(items)
        if other.question.text == item.question.text
        and other.modality == item.modality
        and other.question.options[other.label] in item.question.options
        and other.question.options[other.label] != item.question.options[item.label]
    )
    blank = canvases[row].mean((1, 2), keepdim=True).expand_as(canvases[row])
    shown = {"its own image": canvases[row], "another patient's image": canvases[donor], "blank": blank}
    question = items[row].question
    scores = waist.classify([question] * len(shown))(torch.stack([*shown.values()])).exp().detach()
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    grid = figure.add_gridspec(2, len(shown), height_ratios=(1.2, 1))
    for place, (title, pixels) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[0, place])
        picture(axes, pixels)
        axes.set_title(title, fontsize=9)
        axes = figure.add_subplot(grid[1, place])
        marked = [BLUE if option == items[row].label else GREY for option in range(len(question.options))]
        axes.barh(
            question.options[::-1] if not place else range(len(marked)),
            scores[place][: len(marked)].flip(0),
            color=marked[::-1],
        )
        axes.set(xlim=(0, 1), **({} if not place else {"yticks": []}))
        axes.set_xlabel("probability", fontsize=8)
    return figure


# ----------------------------------------------------------------------------------------------------------- statistics


def intervals() -> Figure:
    """95 % intervals of 80 % right answers: independent questions, and questions about few patients."""
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    axes = figure.subplots()
    right = np.array([number % 5 != 0 for number in range(100)])
    alike = np.repeat([number % 5 != 0 for number in range(20)], 5)
    cases = {
        "20 questions, 20 patients": (right[:20], range(20)),
        "100 questions, 100 patients": (right, range(100)),
        "100 questions, 20 patients,\nall of a patient alike": (alike, np.repeat(range(20), 5)),
    }
    for place, (successes, clusters) in enumerate(cases.values()):
        found = stats.clustered_proportion(successes, list(clusters))
        assert found.estimate is not None and found.lower is not None and found.upper is not None
        low, high = found.estimate - found.lower, found.upper - found.estimate
        axes.errorbar(100 * found.estimate, place, xerr=[[100 * low], [100 * high]], fmt="o", color=BLUE, capsize=4)
    axes.set(yticks=range(len(cases)), yticklabels=[*cases], xlabel="accuracy in %, with its 95 % interval")
    axes.set(xlim=(40, 100), ylim=(-0.5, len(cases) - 0.5))
    axes.invert_yaxis()
    return figure


def verdicts() -> Figure:
    """The gate's three verdicts: the interval of a drop in accuracy, against the smallest drop and the margin."""
    figure = Figure(figsize=(7.2, 2.5), layout="constrained")
    axes = figure.subplots()
    cases = {
        "200 items, 30 lost": (200, 30, 0),
        "40 items, 2 lost": (40, 2, 0),
        "400 items, 4 lost, 4 won": (400, 4, 4),
    }
    rules, colours = Rules(), {"regression": ORANGE, "inconclusive": GREY, "no regression": GREEN}
    for place, (n, lost, won) in enumerate(cases.values()):
        base, new = np.ones(n), np.ones(n)
        new[:lost], base[lost : lost + won] = 0, 0
        (change,) = judge({"accuracy": (base, new)}, np.arange(n), rules, slices={"all": np.ones(n, dtype=bool)})
        drop, colour = 100 * change.drop, colours[change.verdict]
        ends = [[drop - 100 * change.lower], [100 * change.upper - drop]]
        axes.errorbar(drop, place, xerr=ends, fmt="o", color=colour, capsize=4)
        axes.text(
            max(100 * change.upper, 100 * rules.margin) + 0.7,
            place,
            change.verdict,
            color=colour,
            va="center",
            fontsize=9,
        )
    axes.axvline(100 * rules.margin, color="black", ls="--", lw=0.9)
    axes.text(100 * rules.margin + 0.2, -0.4, "--margin", fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(yticks=range(len(cases)), yticklabels=[*cases], xlabel="drop of accuracy in points, with its bounds")
    axes.set(xlim=(-6, 28), ylim=(-0.7, len(cases) - 0.5))
    axes.invert_yaxis()
    return figure


def picture(axes: Axes, pixels: torch.Tensor) -> None:
    axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
