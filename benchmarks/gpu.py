"""Benchmarks on a GPU, step by step: `python benchmarks/gpu.py STEP [--dry]`. `benchmarks/device.sh` runs them all.

Each step prints Markdown. --dry runs the same code with tiny models on any machine.

    machine   versions, and the measured peak of a matrix product
    votes     compare the votes of other batch sizes, and those after a restart
    certify   on a model of 3B class, 392 x 392 pixels, bfloat16: against the bare forward, against the measured peak,
              with each shortcut; memory
    pgd       likewise, against the bare forward and backward
    compiled  both, with the language model's layers and the image encoder's perceptrons compiled
    at-grpo   one step of the command on the shipped model, and one on the 3B model with an adapter

Weights are random, in the shapes of Qwen2.5-VL-3B (or Qwen2-VL-2B: --model 2b). Operations are counted for the plain
forward pass, without subtracting what shortcuts leave out, so that shares of the peak can be compared.
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
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.smoothing import Gaussian, Smoothing
from safemed_eval.smoothing.certify import certify
from safemed_eval.smoothing.copies import noisy_copies

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
SIDE = 392


def real(name: str) -> tiny.Family:
    """Return the model family in its real size."""
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
    """Make a random model, its processor, and the side of its canvas."""
    family, side = (tiny.QWEN2_5_VL, 56) if dry else (real(name), SIDE)
    dtype = torch.float32 if dry else torch.bfloat16
    network, processor = tiny.make(family, dtype=dtype, device=str(device))
    processor.chat_template = _SYSTEM + processor.chat_template
    return network.eval().requires_grad_(False), processor, side


def peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Measure operations/s of a large matrix product."""
    a, b = (torch.randn((side, side), device=device, dtype=dtype) for _ in range(2))
    rates = in_turns({"product": partial(rate_of, lambda: [a @ b for _ in range(10)], 10)})["product"]
    return 2 * side**3 * max(rates)


def flops(network: Any, work: Callable[[], object]) -> float:
    """Count the operations of some work, with eager attention: the counter handles grouped heads only there."""
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
    """Compare votes draw by draw for other batch sizes, then those of a command that is killed and restarted."""
    n, sizes = (40, (8, 5)) if dry else (1000, (64, 16, 250))
    items, canvas = phantom(2 if dry else 8)
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
                rows.append(torch.cat([vote(x) for x in noisy_copies(image, Gaussian(0.25), n, batch, streams)]).cpu())
            drawn[f"{batch}, again" if turn == len(sizes) else str(batch)] = rows
        first = drawn[str(sizes[0])]
        for label, rows in drawn.items():
            differ = sum(int((a != b).sum()) for a, b in zip(rows, first, strict=True))
            counts = sum(not torch.equal(a.bincount(), b.bincount()) for a, b in zip(rows, first, strict=True))
            print(f"| {dtype} | {label} | {differ} of {n * len(items):,} | {counts} of {len(items)} |")
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--model", "builtin:sft", "--data", "phantom", "--limit", str(len(items)), "--sigma", "0.25"]
        asked += ["--n", str(n), "--device", device.type, "--batch-size", "64"]
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        _command("certify", *asked, "--out", str(whole))
        process = subprocess.Popen([sys.executable, "-m", "safemed_eval", "certify", *asked, "--out", str(killed)])
        while process.poll() is None and b"\n" not in _raw(killed):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(_votes(killed))
        _command("certify", *asked, "--out", str(killed))
        same = _votes(whole) == _votes(killed)
    print(f"\nKilled with {before} of {len(items)} records written, and started again: ", end="")
    print("the same votes" if same else "OTHER VOTES")


def _votes(run: Path) -> dict[str, list[int]]:
    whole_lines = _raw(run).rpartition(b"\n")[0].splitlines()
    return {record["item"]: record["votes0"] + record["votes"] for record in map(json.loads, whole_lines)}


def _raw(run: Path) -> bytes:
    file = run / "records.jsonl"
    return file.read_bytes() if file.exists() else b""


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "safemed_eval", *words], check=True, stdout=subprocess.DEVNULL)


class Bench:
    """A random model of real size, and the work that is timed on it."""

    def __init__(self, device: torch.device, *, dry: bool, name: str) -> None:
        self.network, self.processor, side = made(name, device, dry=dry)
        self.limit = peak(device, self.network.dtype, 512 if dry else 8192)
        self.vlm = VLM(self.network, self.processor, Asking())
        self.model = Waist(self.vlm, device)
        self.batch, self.rows, self.turns = (4, 2, 1) if dry else (64, 16, 2)
        self.canvas = torch.rand((3, side, side), generator=torch.Generator().manual_seed(0)).to(device)
        started = time.perf_counter()
        self.vlm.take_shortcuts([QUESTION], (side, side))
        self.taken = self.vlm.shortcuts
        size = sum(p.numel() for p in self.network.parameters()) / 1e9
        print(
            f"{'tiny' if dry else name}: {size:.2f} billion parameters, {side} x {side}, {self.network.dtype}. "
            f"Shortcuts, proved in {time.perf_counter() - started:.1f} s: {', '.join(self.taken) or 'none'}. "
            + " ".join(f"{key} not: {why}." for key, why in self.vlm.refused.items())
        )

        spec = Smoothing(sigma=0.25, n0=self.batch, n=(5 if self.batch < 8 else 3) * self.batch)
        self.draws = spec.n0 + spec.n
        streams = partial(generator, device, 0, "gpu")
        vote = self.model.vote(QUESTION)
        self.certify = partial(certify, vote, self.canvas, spec, rng=streams, batch=self.batch)
        self.images, questions = self.canvas.repeat(self.rows, 1, 1, 1), [QUESTION] * self.rows
        self.classify, self.steps = self.model.classify(questions), 4
        pgd = attacks.parse(f"pgd:eps=4/255,steps={self.steps},early_stop=no")
        labels = torch.zeros(self.rows, dtype=torch.long, device=device)
        keys = [generator(device, row) for row in range(self.rows)]
        self.pgd = partial(pgd, self.classify, self.images, labels, keys)

    @torch.no_grad()
    def forward(self, inputs: dict[str, Any]) -> None:
        """Run the model alone, as often as `certify` does."""
        for _ in range(self.draws // self.batch):
            self.network(**inputs, use_cache=False, logits_to_keep=1)

    def slope(self) -> None:
        """Run forward and backward to the pixels, as often as PGD does."""
        for _ in range(self.steps):
            shown = self.images.clone().requires_grad_()
            torch.autograd.grad(self.classify(shown)[:, 0].sum(), shown)

    def under(self, shortcuts: tuple[str, ...], work: Callable[[], object], units: int) -> Callable[[], float]:
        """Return a function that measures the rate of some work with these shortcuts."""

        def timed() -> float:
            self.vlm.shortcuts = shortcuts
            return rate_of(work, units)

        return timed

    def flops_of_a_vote(self) -> float:
        self.vlm.shortcuts = ()
        with torch.no_grad():
            return flops(self.network, lambda: self.model.vote(QUESTION)(self.canvas[None]))

    def flops_of_a_step(self) -> float:
        self.vlm.shortcuts = ()
        pixels = self.images[:1].clone().requires_grad_()
        classify = self.model.classify([QUESTION])
        return flops(self.network, lambda: torch.autograd.grad(classify(pixels)[0, 0], pixels))


def step_certify(device: torch.device, *, dry: bool, name: str) -> None:
    bench = Bench(device, dry=dry, name=name)
    each, vlm = bench.flops_of_a_vote(), bench.vlm
    prompts = [vlm.prompt(QUESTION, vlm.asking.template.cue)] * bench.batch
    inputs = vlm._inputs(bench.canvas.repeat(bench.batch, 1, 1, 1), prompts, positions=True)
    alone = partial(bench.forward, inputs)
    ways = {"no shortcut": (), **{shortcut: (shortcut,) for shortcut in bench.taken}, "all of them": bench.taken}
    sides = {"the model alone on inputs that are ready": bench.under((), alone, bench.draws)}
    sides |= {f"certify, {way}": bench.under(taken, bench.certify, bench.draws) for way, taken in ways.items()}
    title = f"CERTIFY, batch {bench.batch}, {each / 1e9:.0f} Gflop a copy"
    _table(title, "samples/s", in_turns(sides, bench.turns), each, bench.limit)


def step_pgd(device: torch.device, *, dry: bool, name: str) -> None:
    bench = Bench(device, dry=dry, name=name)
    each, units = bench.flops_of_a_step(), bench.steps * bench.rows
    sides = {}
    for way, taken in {"no shortcut": (), "all of them": bench.taken}.items():
        sides[f"forward and backward to the pixels, {way}"] = bench.under(taken, bench.slope, units)
        sides[f"PGD, {way}"] = bench.under(taken, bench.pgd, units)
    title = f"PGD, {bench.rows} rows, {each / 1e9:.0f} Gflop a step"
    _table(title, "gradient steps/s", in_turns(sides, bench.turns), each, bench.limit)


def step_compiled(device: torch.device, *, dry: bool, name: str) -> None:
    """As `--compile` does, against the same without it."""
    bench = Bench(device, dry=dry, name=name)
    vote, step = bench.flops_of_a_vote(), bench.flops_of_a_step()
    plain = bench.taken
    started = time.perf_counter()
    bench.vlm.take_shortcuts([QUESTION], tuple(bench.canvas.shape[-2:]), compiled=True)
    compiled = bench.vlm.shortcuts
    print(f"Compiled and proved in {time.perf_counter() - started:.0f} s: {', '.join(compiled)}; {bench.vlm.refused}")
    for side, work, units, each in (
        ("certify", bench.certify, bench.draws, vote),
        ("PGD", bench.pgd, bench.steps * bench.rows, step),
    ):
        sides = {", ".join(taken): bench.under(taken, work, units) for taken in (plain, compiled)}
        _table(side, "rows/s", in_turns(sides, bench.turns), each, bench.limit)


def _table(title: str, unit: str, rates: dict[str, list[float]], each: float, limit: float) -> None:
    """Print medians of the turns, relative to the first side and to the measured peak."""
    print(f"\n| {title} | {unit} | / the first | of the peak |\n|---|---|---|---|")
    first = sorted(next(iter(rates.values())))[len(next(iter(rates.values()))) // 2]
    for side, turns in rates.items():
        rate = sorted(turns)[len(turns) // 2]
        print(f"| {side} | {rate:.1f} | {rate / first:.2f} | {rate * each / limit:.1%} |")
    if torch.cuda.is_available():
        print(f"\nPeak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
        torch.cuda.reset_peak_memory_stats()


def step_at_grpo(device: torch.device, *, dry: bool, name: str) -> None:
    """Run the command in a process of its own, which reports its peak memory."""
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


STEPS = {
    "machine": step_machine,
    "votes": step_votes,
    "certify": step_certify,
    "pgd": step_pgd,
    "compiled": step_compiled,
    "at-grpo": step_at_grpo,
}


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
