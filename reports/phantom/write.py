"""Ships the checkpoints, and writes the table and the model cards from the run folders. No number is typed by hand.

python reports/phantom/write.py ship runs/phantom      # sft and at-grpo, in half precision, into the package
python reports/phantom/write.py table runs/phantom     # README.md here, and the cards beside the checkpoints
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from safemed_eval import grammar
from safemed_eval.models.source import ABOUT
from safemed_eval.report import summarize
from safemed_eval.rounding import percent, percent_down, radius
from safemed_eval.runs import read_meta
from safemed_eval.train.log import LOG, WORK, read_log

HERE = Path(__file__).parent
BUILTIN = HERE.parents[1] / "safemed_eval" / "models" / "builtin"
SHIPPED = ("sft", "at-grpo")
MODELS = ("sft", "at-sft", "grpo", "at-grpo")
RADII = {"0": 0.0, "0.5s": 0.5, "1s": 1.0, "2s": 2.0}
"""As multiples of sigma."""


def ship(runs: Path) -> None:
    """Copy checkpoints into the package, float16, with what they say of themselves."""
    logging.disable_progress_bar()
    for name in SHIPPED:
        start, out = runs / name, BUILTIN / name
        out.mkdir(parents=True, exist_ok=True)
        AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float16).save_pretrained(out)
        AutoProcessor.from_pretrained(start).save_pretrained(out)
        shutil.copy(start / ABOUT, out)
        print(f"{out}: {(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


def table(runs: Path) -> None:
    """Fill the gaps of template.md."""
    evaluated = {name: summarize(runs / f"evaluate-{name}") for name in MODELS}
    attacks = list(next(iter(evaluated.values())).overall)
    rows = [["", *(_attack(attack) for attack in attacks)]]
    rows += [
        [name, *(percent(run.overall[attack]["accuracy"]) for attack in attacks)] for name, run in evaluated.items()
    ]
    certified = [["", "sigma", *(f"radius {name}" for name in RADII), "average radius", "abstained"]]
    for name in MODELS:
        for sigma in (0.1, 0.25):
            points = {key: factor * sigma for key, factor in RADII.items()}
            overall = summarize(runs / f"certify-{name}-{sigma}", points).overall
            cells = [_down(overall["certified"][key]["certified_accuracy"]) for key in RADII]
            average = radius(overall["average_radius"])
            certified.append([name, str(sigma), *cells, average, percent(overall["abstention"])])
    training = [["", "command", "minutes", "steps"]]
    for name in MODELS:
        about = json.loads((runs / name / ABOUT).read_text(encoding="utf-8"))
        log = read_log(runs / name / WORK / LOG)
        seconds = sum(line["train_runtime"] for line in log if "train_runtime" in line)
        command = f"`safemed-eval {' '.join(about['arguments'])}`"
        training.append([name, command, f"{seconds / 60:.0f}", str(log[-1]["step"])])
    first = read_meta(runs / "evaluate-sft")
    filled = (HERE / "template.md").read_text(encoding="utf-8")
    for gap, text in {
        "{attacked}": _markdown(rows),
        "{certified}": _markdown(certified),
        "{training}": _markdown(training),
        "{questions}": str(first["items"]),
        "{certified questions}": str(read_meta(runs / "certify-sft-0.1")["items"]),
        "{versions}": ", ".join(f"{k} {v}" for k, v in first["sessions"][-1]["versions"].items()),
    }.items():
        filled = filled.replace(gap, text)
    (HERE / "README.md").write_text(filled, encoding="utf-8")
    for name in SHIPPED:
        mine = next(row for row in training if row[0] == name)
        numbers = [rows[0], *(row for row in rows[1:] if row[0] == name)]
        radii = [certified[0], *(row for row in certified[1:] if row[0] == name)]
        (BUILTIN / name / "README.md").write_text(
            CARD.format(
                name=name,
                command=mine[1],
                minutes=mine[2],
                attacked=_markdown(numbers),
                certified=_markdown(radii),
                questions=first["items"],
            ),
            encoding="utf-8",
        )


CARD = """# builtin:{name}

A Qwen2-VL of 1.9 million parameters, trained on drawn images (`phantom`) to have something real to run at once. Its
organs and diseases are discs, rings and stripes: it knows nothing of medicine. **Not for clinical use.**

Made by {command} ({minutes} min on 2 CPU cores; `reports/phantom` has the commands before it), stored in float16.
Accuracy in % on {questions} questions of `phantom`'s test split, clean and under L-infinity attacks:

{attacked}

Certified accuracy in % (rounded down; a stratified sample, see `reports/phantom`):

{certified}
"""


def _attack(name: str) -> str:
    """pgd:eps=4/255,steps=10,restarts=10 -> pgd-10 x 10 at 4/255"""
    kind, options = grammar.split(name)
    if not options:
        return kind
    steps = f"-{options['steps']}" if "steps" in options else ""
    restarts = f" x {options['restarts']}" if "restarts" in options else ""
    return f"{kind}{steps}{restarts} at {options['eps']}"


def _down(share: float | None) -> str:
    return "above ceiling" if share is None else percent_down(share)


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    {"ship": ship, "table": table}[sys.argv[1]](Path(sys.argv[2]))
