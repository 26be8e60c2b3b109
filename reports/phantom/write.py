"""Ships the checkpoints, and writes the table and the model cards from the run folders. No number is typed by hand.

python reports/phantom/write.py ship runs/phantom      # two of them, in half precision, into the package
python reports/phantom/write.py table runs/phantom     # README.md here, and the cards beside the checkpoints

A model whose folders are gone keeps the rows that README.md and its card have of it, and is not shipped again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from safemed_eval import grammar
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.report import summarize
from safemed_eval.rounding import percent, percent_down, radius
from safemed_eval.runs import read_meta
from safemed_eval.train.log import LOG, WORK, read_log

HERE = Path(__file__).parent
BUILTIN = HERE.parents[1] / "safemed_eval" / "models" / "builtin"
SHIPPED = {"sft": "sft", "at-grpo-2": "at-grpo"}
"""And what they are called there."""
MODELS = ("sft", "at-sft", "grpo", "at-grpo", "at-grpo-2")
RADII = {"0": 0.0, "0.5s": 0.5, "1s": 1.0, "2s": 2.0}
"""As multiples of sigma."""


def ship(runs: Path) -> None:
    """Copy checkpoints into the package, float16, with what they say of themselves."""
    logging.disable_progress_bar()
    for name, called in SHIPPED.items():
        start, out = runs / name, BUILTIN / called
        if start.is_dir():
            out.mkdir(parents=True, exist_ok=True)
            AutoModelForImageTextToText.from_pretrained(start, dtype=torch.float16).save_pretrained(out)
            AutoProcessor.from_pretrained(start).save_pretrained(out)
            shutil.copy(start / ABOUT, out)
            print(f"{out}: {(out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


def table(runs: Path) -> None:
    """Fill the gaps of template.md."""
    there = [name for name in MODELS if (runs / f"evaluate-{name}").is_dir()]
    attacked, certified, training = _attacked(runs, there), _certified(runs, there), _training(runs, there)
    wholes = [_whole(mine, before) for mine, before in zip((attacked, certified, training), _tables(), strict=True)]
    first = read_meta(runs / f"evaluate-{there[0]}")
    filled = (HERE / "template.md").read_text(encoding="utf-8")
    for gap, text in {
        "{attacked}": _markdown(wholes[0]),
        "{certified}": _markdown(wholes[1]),
        "{training}": _markdown(wholes[2]),
        "{questions}": str(first["items"]),
        "{certified questions}": str(read_meta(runs / f"certify-{there[0]}-0.1")["items"]),
    }.items():
        filled = filled.replace(gap, text)
    (HERE / "README.md").write_text(filled, encoding="utf-8")
    for name in (name for name in SHIPPED if name in there):
        command, minutes = next(row[1:3] for row in training if row[0] == name)
        card = CARD.format(
            name=SHIPPED[name],
            command=command,
            minutes=minutes,
            attacked=_markdown([attacked[0], *(row for row in attacked if row[0] == name)]),
            certified=_markdown([certified[0], *(row for row in certified if row[0] == name)]),
            questions=first["items"],
        )
        (BUILTIN / SHIPPED[name] / "README.md").write_text(card, encoding="utf-8")


Rows = list[list[str]]


def _attacked(runs: Path, names: Sequence[str]) -> Rows:
    found = {name: summarize(runs / f"evaluate-{name}").overall for name in names}
    attacks = list(next(iter(found.values())))
    rows = [[name, *(percent(overall[attack]["accuracy"]) for attack in attacks)] for name, overall in found.items()]
    return [["", *map(_attack, attacks)], *rows]


def _certified(runs: Path, names: Sequence[str]) -> Rows:
    rows = [["", "sigma", *(f"radius {name}" for name in RADII), "average radius", "abstained"]]
    for name in names:
        for sigma in (0.1, 0.25):
            points = {key: factor * sigma for key, factor in RADII.items()}
            overall = summarize(runs / f"certify-{name}-{sigma}", points).overall
            cells = [_down(overall["certified"][key]["certified_accuracy"]) for key in RADII]
            rows.append([name, str(sigma), *cells, radius(overall["average_radius"]), percent(overall["abstention"])])
    return rows


def _training(runs: Path, names: Sequence[str]) -> Rows:
    rows = [["", "command", "minutes", "steps", "computed with"]]
    for name in names:
        about = json.loads((runs / name / ABOUT).read_text(encoding="utf-8"))
        log = read_log(runs / name / WORK / LOG)
        seconds = sum(line["train_runtime"] for line in log if "train_runtime" in line)
        command = f"`safemed-eval {' '.join(about['arguments'])}`"
        versions = read_meta(runs / f"evaluate-{name}")["sessions"][-1]["versions"]
        libraries = ", ".join(f"{library} {versions[library]}" for library in ("torch", "transformers"))
        rows.append([name, command, f"{seconds / 60:.0f}", str(log[-1]["step"]), libraries])
    return rows


def _tables() -> list[Rows]:
    """The tables of README.md as it stands."""
    tables, before = list[Rows](), ""
    for line in (HERE / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        before = line
    return tables


def _whole(mine: Rows, before: Rows) -> Rows:
    """Rows of all models: those that were made now, and of the others what stood there under the same head."""
    assert mine[0] == before[0], "the columns are others; make all models again"
    new = {row[0] for row in mine}
    return [mine[0], *(row for name in MODELS for row in (mine if name in new else before) if row[0] == name)]


CARD = """# builtin:{name}

A Qwen2-VL of 1.9 million parameters, trained on drawn images (`phantom`) to have something real to run at once. Its
organs and diseases are discs, rings and stripes: it knows nothing of medicine. **Not for clinical use.**

Made by {command} ({minutes} min on 2 CPU cores; `reports/phantom` has the commands before it, and says
what their names stand for), stored in float16.
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


def _markdown(rows: Rows) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    {"ship": ship, "table": table}[sys.argv[1]](Path(sys.argv[2]))
