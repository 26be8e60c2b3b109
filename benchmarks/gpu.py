"""What needs a GPU, step by step: `python benchmarks/gpu.py STEP [--dry]`. `benchmarks/device.sh` runs them all.

Each step prints Markdown. --dry tries it on any machine: the same code, tiny.

    machine   versions, and the measured peak of a matrix product
    votes     are votes the same for other batch sizes, and after a restart?
    speed     certify and PGD on a model of 3B class, 392 x 392 pixels, bfloat16: against the bare forward, against the
              measured peak, with each shortcut, compiled; memory
    at-grpo   one step of the command on the shipped model, and one on the 3B model with an adapter

Weights are random, of the shapes of Qwen2.5-VL-3B (or Qwen2-VL-2B: --model 2b). Counted are the operations of the plain
forward: what shortcuts leave out is not taken off, so that shares compare.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from _common import QUESTION, in_turns, machine, phantom, rate_of
from torch.utils.flop_counter import FlopCounterMode

from safemed_eval import attacks
from safemed_eval.data import canvas_of
from safemed_eval.models import Asking, load, resolve, tiny
from safemed_eval.models.vlm import VLM
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Smoothing
from safemed_eval.smoothing.certify import certify
from safemed_eval.smoothing.noise import noisy_copies

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
SIDE = 392


def real(name: str) -> tiny.Family:
    """The family in its real shape."""
    pixels = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    images = partial(transformers.Qwen2VLImageProcessor, patch_size=14, merge_size=2, size=pixels)
    if name == "2b":
        base, text, vision = (
            tiny.SMALL_QWEN2_VL,
            {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
            {"embed_dim": 1280, "hidden_size": 1536, "depth": 32, "num_heads": 16, "patch_size": 14},
        )
    else:
        base, text, vision = (
            tiny.QWEN2_5_VL,
            {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
            {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "out_hidden_size": 2048}
            | {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
        )
    text |= {"num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = {
        **base.config,
        "text_config": base.config["text_config"] | text,
        "vision_config": base.config["vision_config"] | vision,
    }
    return replace(base, config=config, image_processor=images)


def made(name: str, device: torch.device, *, dry: bool) -> tuple[Any, Any, int]:
    """A random model, its processor, and the side of its canvas."""
    family, side = (tiny.QWEN2_5_VL, 56) if dry else (real(name), SIDE)
    dtype = torch.float32 if dry else torch.bfloat16
    network, processor = tiny.make(family, dtype=dtype, device=str(device))
    processor.chat_template = _SYSTEM + processor.chat_template
    return network.eval().requires_grad_(False), processor, side


def peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations/s of a large matrix product."""
    a, b = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))
    rates = in_turns({"product": partial(rate_of, lambda: [a @ b for _ in range(10)], 10)})["product"]
    return 2 * side**3 * max(rates)


def flops(network: Any, work: Callable[[], object]) -> float:
    """The operations of some work, with eager attention, which alone the counter counts for grouped heads."""
    before = network.config._attn_implementation
    network.set_attn_implementation("eager")
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    network.set_attn_implementation(before)
    return float(counter.get_total_flops())


def step_machine(device: torch.device, *, dry: bool, name: str) -> None:
    print(machine())
    dtype, side = (torch.float32, 512) if dry else (torch.bfloat16, 8192)
    best = peak(device, dtype, side) / 1e12
    print(f"\nMeasured peak of a {side} x {side} matrix product in {dtype}: {best:.1f} Tflop/s")


@torch.no_grad()
def step_votes(device: torch.device, *, dry: bool, name: str) -> None:
    """Draw by draw for other batch sizes, in one process; then the command, killed and started again."""
    n, sizes = (40, (8, 5)) if dry else (1000, (64, 16, 100, 250))
    items, canvas = phantom(2 if dry else 12)
    print("| builtin:sft | batch | votes that differ from those of the first | questions whose counts differ |")
    print("|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        model = load(resolve("builtin:sft"), device=str(device), dtype=dtype)
        drawn: dict[str, list[torch.Tensor]] = {}
        for turn, batch in enumerate((*sizes, sizes[0])):
            rows = []
            for item in items:
                image, vote = canvas_of(item, canvas).to(device), model.vote(item.question)
                streams = partial(generator, device, 0, "certify", item.id, "estimate")
                rows.append(torch.cat([vote(x) for x in noisy_copies(image, 0.25, n, batch, streams)]).cpu())
            drawn[f"{batch}, again" if turn == len(sizes) else str(batch)] = rows
        first = drawn[str(sizes[0])]
        for label, rows in drawn.items():
            differ = sum(int((a != b).sum()) for a, b in zip(rows, first, strict=True))
            counts = sum(not torch.equal(a.bincount(), b.bincount()) for a, b in zip(rows, first, strict=True))
            print(f"| {dtype} | {label} | {differ} of {n * len(items):,} | {counts} of {len(items)} |")
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--model", "builtin:sft", "--data", "phantom", "--limit", "4" if dry else "12", "--sigma", "0.25"]
        asked += ["--n", str(n), "--device", device.type, "--batch-size", "64"]
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        _command("certify", *asked, "--out", str(whole))
        process = subprocess.Popen([sys.executable, "-m", "safemed_eval", "certify", *asked, "--out", str(killed)])
        while process.poll() is None and not (killed / "records.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(_votes(killed))
        _command("certify", *asked, "--out", str(killed))
        same = _votes(whole) == _votes(killed)
    print(f"\nKilled with {before} of {len(items)} records written, and started again: ", end="")
    print("the same votes" if same else "OTHER VOTES")


def _votes(run: Path) -> dict[str, list[int]]:
    lines = (run / "records.jsonl").read_text().splitlines() if (run / "records.jsonl").exists() else []
    return {record["item"]: record["votes0"] + record["votes"] for record in map(json.loads, lines)}


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "safemed_eval", *words], check=True, stdout=subprocess.DEVNULL)


def step_speed(device: torch.device, *, dry: bool, name: str) -> None:
    network, processor, side = made(name, device, dry=dry)
    size = sum(p.numel() for p in network.parameters()) / 1e9
    limit = peak(device, network.dtype, 512 if dry else 8192)
    vlm = VLM(network, processor, Asking())
    model = Waist(vlm, device)
    batch, rows, turns = (4, 2, 1) if dry else (64, 16, 3)
    canvas = torch.rand((3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    copies, questions = canvas.repeat(batch, 1, 1, 1), [QUESTION] * batch
    with torch.no_grad():
        each = flops(network, lambda: model.vote(QUESTION)(canvas[None]))
    started = time.perf_counter()
    vlm.take_shortcuts([QUESTION], (side, side))
    taken = vlm.shortcuts
    print(
        f"{'tiny' if dry else name}: {size:.2f} billion parameters, {side} x {side}, {network.dtype}, "
        f"{each / 1e9:.0f} Gflop a forward. Shortcuts, proved in {time.perf_counter() - started:.1f} s: "
        f"{', '.join(taken) or 'none'}. " + " ".join(f"{key} not: {why}." for key, why in vlm.refused.items())
    )

    inputs = vlm._inputs(copies, [vlm.prompt(QUESTION, vlm.asking.template.cue)] * batch, positions=True)
    spec = Smoothing(sigma=0.25, n0=batch, n=5 * batch)
    draws = spec.n0 + spec.n
    run = partial(certify, model.vote(QUESTION), canvas, spec, rng=partial(generator, device, 0, "gpu"), batch=batch)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(draws // batch):
                network(**inputs, use_cache=False, logits_to_keep=1)

    def under(shortcuts: tuple[str, ...], work: Callable[[], object]) -> Callable[[], float]:
        def timed() -> float:
            vlm.shortcuts = shortcuts
            return rate_of(work, draws)

        return timed

    sides = {"the model alone on inputs that are ready": under((), bare), "certify, no shortcut": under((), run)}
    sides |= {f"certify, {one}": under((one,), run) for one in taken}
    sides["certify, all of them"] = under(taken, run)
    _table(f"CERTIFY, batch {batch}", "samples/s", in_turns(sides, turns), each, limit)

    images, labels = canvas.repeat(rows, 1, 1, 1), torch.zeros(rows, dtype=torch.long, device=device)
    steps = 2 if dry else 4
    pgd = attacks.parse(f"pgd:eps=4/255,steps={steps},early_stop=no")
    keys = [generator(device, row) for row in range(rows)]
    attack = partial(pgd, model.classify(questions[:rows]), images, labels, keys)

    def slope() -> None:
        for _ in range(steps):
            shown = images.clone().requires_grad_()
            torch.autograd.grad(model.classify(questions[:rows])(shown)[:, 0].sum(), shown)

    vlm.shortcuts = ()
    pixels = images[:1].clone().requires_grad_()
    step = flops(network, lambda: torch.autograd.grad(model.classify([QUESTION])(pixels)[0, 0], pixels))
    sides = {
        "forward and backward to the pixels alone": lambda: rate_of(slope, steps * rows),
        "PGD": lambda: rate_of(attack, steps * rows),
    }
    for shortcuts in ((), taken):
        vlm.shortcuts = shortcuts
        _table(
            f"PGD, {rows} rows, shortcuts {list(shortcuts)}", "gradient steps/s", in_turns(sides, turns), step, limit
        )

    started = time.perf_counter()
    decoder, tower = network.get_decoder().layers, network.model.visual.blocks
    for layer in (*decoder, *tower):
        layer.compile()
    compiled = {"the model alone": under((), bare), "certify, no shortcut": under((), run)}
    rates = in_turns(compiled, turns)
    _table(f"CERTIFY, layers compiled ({time.perf_counter() - started:.0f} s in all)", "samples/s", rates, each, limit)
    vlm.shortcuts = ()
    _table("PGD, layers compiled", "gradient steps/s", in_turns(sides, turns), step, limit)


def _table(title: str, unit: str, rates: dict[str, list[float]], each: float, limit: float) -> None:
    """Medians of the turns, each against the first side and against the measured peak."""
    print(f"\n| {title} | {unit} | / the first | of the peak |\n|---|---|---|---|")
    first = sorted(next(iter(rates.values())))[len(next(iter(rates.values()))) // 2]
    for side, found in rates.items():
        rate = sorted(found)[len(found) // 2]
        print(f"| {side} | {rate:.1f} | {rate / first:.2f} | {rate * each / limit:.1%} |")
    if torch.cuda.is_available():
        print(f"\nPeak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
        torch.cuda.reset_peak_memory_stats()


def step_at_grpo(device: torch.device, *, dry: bool, name: str) -> None:
    """The command itself, in a process of its own, which says what memory it took."""
    common = ["--data", "phantom:split=train,images=16", "--steps", "1", "--device", "cpu" if dry else "auto"]
    with tempfile.TemporaryDirectory() as folder:
        runs = {"builtin:sft": ["--model", "builtin:sft", "--max-new-tokens", "8"]}
        if not dry:
            network, processor, _ = made(name, device, dry=False)
            network.save_pretrained(Path(folder, name))
            processor.save_pretrained(Path(folder, name))
            del network
            torch.cuda.empty_cache()
            asked = ["--lora", "r=16", "--bf16", "--gradient-checkpointing", "--canvas", f"{SIDE}x{SIDE}"]
            runs[f"{name}, an adapter of rank 16"] = [
                *["--model", str(Path(folder, name)), "--batch-size", "16", "--max-new-tokens", "32"],
                *asked,
            ]
        for label, words in runs.items():
            out = Path(folder, "out")
            started = time.perf_counter()
            script = (
                "import sys, torch\nfrom safemed_eval.cli import app\n"
                "app(sys.argv[1:], standalone_mode=False)\n"
                "print('MEMORY', torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)"
            )
            command = [sys.executable, "-c", script, "train", "at-grpo", *words, *common, "--out", str(out)]
            ended = subprocess.run(command, capture_output=True, text=True)
            took = time.perf_counter() - started
            if ended.returncode:
                print(f"- {label}: FAILED, exit code {ended.returncode}: {ended.stderr[-1500:]}")
                continue
            memory = int(ended.stdout.rpartition("MEMORY")[2]) / 2**30
            lines = map(json.loads, (out / "training" / "log.jsonl").read_text().splitlines())
            logged = {key: value for line in lines for key, value in line.items() if not key.startswith("train_")}
            print(f"- {label}: {took:.0f} s with all its loading, peak memory {memory:.1f} GiB; `{json.dumps(logged)}`")
            subprocess.run(["rm", "-rf", str(out)], check=True)


STEPS = {"machine": step_machine, "votes": step_votes, "speed": step_speed, "at-grpo": step_at_grpo}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--dry", action="store_true", help="tiny, on any machine")
    parser.add_argument("--model", default="3b", choices=("2b", "3b"))
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not asked.dry:
        sys.exit("torch sees no CUDA device here; --dry tries the script without one")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()
    STEPS[asked.step](device, dry=asked.dry, name=asked.model)


if __name__ == "__main__":
    main()
