"""Training in two real processes: the same weights as in one, whole or sharded with FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from processes.trainings import FSDP, made
from safetensors.torch import load_file
from torture.kills import PATIENCE_S
from typer.testing import CliRunner

from safemed_eval.cli import app
from safemed_eval.errors import UserError
from safemed_eval.train._shards import refuse_unsupported
from safemed_eval.train.log import read_log

FAMILY = "qwen2_5_vl"
SHARED = {"steps": 2, "learning_rate": 1e-3}
ATTACKED = {"attack_steps": 2, "eps_warm_up": 0.0}
GROUPS = {"group_size": 4, "max_new_tokens": 6, "temperature": 0.7}
OPTIONS: dict[str, dict[str, Any]] = {
    "sft": SHARED,
    "at-sft": SHARED | ATTACKED | {"attack_share": 0.3, "accumulate": 2},
    "grpo": SHARED | GROUPS,
    "at-grpo": SHARED | GROUPS | ATTACKED | {"attack_share": 0.5},
}
"""Of the few rows of a process, none may be attacked while the other process attacks some of its own."""
RUNS = [
    *(("ddp", method, lora) for method in ("at-sft", "at-grpo") for lora in (None,)),
    *(("fsdp", method, lora) for method in OPTIONS for lora in (None, "r=2")),
]


WATCHED = {"eval_data": "phantom:split=validation,images=3", "eval_every": 1, "samples": 1}
WATCHED |= {"eval_attack": "pgd:eps=2/255,steps=1"}


def _options(method: str, lora: str | None, processes: int) -> dict[str, Any]:
    rows = 8 // processes // OPTIONS[method].get("accumulate", 1)
    return OPTIONS[method] | {"batch_size": rows, "lora": lora}


def _weights(out: Path) -> dict[str, Any]:
    (file,) = out.glob("*model.safetensors")
    return load_file(file)


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all trainings in two processes; one launch makes them all."""
    place, model = tmp_path_factory.mktemp("processes"), str(checkpoint(FAMILY))
    jobs = [
        {"strategy": strategy, "method": method, "out": f"{strategy}-{method}-{lora}"} | _job(method, lora)
        for strategy, method, lora in RUNS
    ]
    kept = _options("at-sft", None, 2) | {"steps": 4, "save_every": 2, "keep_checkpoints": True}
    jobs += [
        {"strategy": strategy, "method": "at-sft", "out": f"{strategy}-cut", "options": kept, "cut": 2}
        for strategy in ("fsdp", "sharded-state")
    ]
    watched = _options("at-sft", None, 2) | WATCHED
    jobs += [{"strategy": "fsdp", "method": "at-sft", "out": "watched", "options": watched}]
    broken = _options("sft", None, 2) | {"learning_rate": 1e38}
    jobs += [{"strategy": "fsdp", "method": "sft", "out": "broken", "options": broken}]
    jobs = [job | {"model": model, "out": str(place / str(job["out"]))} for job in jobs]
    (place / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).parent / "processes" / "trainings.py"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, "jobs.json"],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return place


def _job(method: str, lora: str | None) -> dict[str, Any]:
    return {"options": _options(method, lora, 2)}


def _seen(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}.rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The same training in one process, with batches as large as those of the two together."""
    made_already: dict[tuple[str, str | None], Path] = {}

    def get(method: str, lora: str | None) -> Path:
        if (method, lora) not in made_already:
            out = tmp_path_factory.mktemp("alone") / "new"
            with pytest.MonkeyPatch.context() as monkeypatch:
                options = _options(method, lora, 1)
                made(monkeypatch, model=str(checkpoint(FAMILY)), method=method, out=str(out), options=options)
            made_already[method, lora] = out
        return made_already[method, lora]

    return get


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method", "lora"), RUNS)
def test_two_processes_make_the_weights_of_one(
    strategy: str, method: str, lora: str | None, folder: Path, alone: Callable[..., Path]
) -> None:
    """Losses, gradients, completions and rewards of the first step, and the weights after the last."""
    name = f"{strategy}-{method}-{lora}"
    for seen in _seen(folder, name):
        assert seen["processes"] == 2 and "error" not in seen
        assert bool(seen["sharded"]) == (strategy == "fsdp")
    assert method != "at-grpo" or _seen(folder, name)[1]["alone"], "and the first waited for nothing"
    two, one = folder / name, alone(method, lora)
    assert json.loads((two / "training/run.json").read_text())["spec"]["processes"] == 2
    assert json.loads((one / "training/run.json").read_text())["spec"]["processes"] == 1
    first, alike = (read_log(out / "training/log.jsonl")[0] for out in (two, one))
    assert first["loss"] == pytest.approx(alike["loss"], abs=1e-6)
    assert first["grad_norm"] == pytest.approx(alike["grad_norm"], rel=1e-4)
    for key in ("reward", "num_tokens", "completions/mean_length"):
        assert first.get(key) == pytest.approx(alike.get(key), abs=1e-6)
    assert "grpo" not in method or first["reward_std"] > 0, "advantages are not all 0"
    # Adam turns rounding of gradients near zero into steps; there are more of these where most advantages are small.
    assert _apart(_weights(two), _weights(one)) < (2e-5 if "grpo" in method else 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "sharded-state"])
def test_a_sharded_training_goes_on_to_the_same_end(strategy: str, folder: Path) -> None:
    out = folder / f"{strategy}-cut"
    assert all("error" not in seen and seen["sharded"] for seen in _seen(folder, out.name))
    assert [line["step"] for line in read_log(out / "training/log.jsonl") if "loss" in line] == [1, 2, 3, 4]
    assert _apart(_weights(out), load_file(f"{out}-model.safetensors")) == 0


def test_a_sharded_training_finds_the_best_checkpoint_of_one_process(
    folder: Path, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process evaluates its share of the items with the whole weights, and one of them lets the model write."""
    out, options = tmp_path / "alone", _options("at-sft", None, 1) | WATCHED
    made(monkeypatch, model=str(checkpoint(FAMILY)), method="at-sft", out=str(out), options=options)
    two, one = (read_log(place / "training/log.jsonl") for place in (folder / "watched", out))
    evaluated = [line for line in two if "eval/items" in line]
    assert evaluated == [line for line in one if "eval/items" in line] and len(evaluated) == 2
    notes = [json.loads((place / "safemed_eval.json").read_text())["validation"] for place in (folder / "watched", out)]
    assert notes[0] == notes[1]
    assert _apart(_weights(folder / "watched"), _weights(out)) < 3e-6
    assert [line["step"] for line in read_log(folder / "watched/training/samples.jsonl")] == [1, 2]


def test_a_sharded_model_that_is_broken_is_not_saved(folder: Path) -> None:
    for seen in _seen(folder, "broken"):
        assert "not finite" in seen["error"]
    assert not (folder / "broken" / "model.safetensors").exists()


# ----------------------------------------------------------------------------------------- configurations of accelerate

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "examples" / "train").glob("*.yaml"))


def _launched(file: Path) -> tuple[Any, dict[str, str]]:
    """The arguments and the environment that `accelerate launch` makes of a file, without starting anything."""
    args = launch_command_parser().parse_args(["--config_file", str(file), "-m", "safemed_eval"])
    args, *_ = _validate_launch_command(args)
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = []
    return args, prepare_deepspeed_cmd_env(args)[1]


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_examples_are_what_accelerate_reads_and_training_takes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config_from_file(str(file))
    known = {action.dest for action in launch_command_parser()._actions}
    assert {*config.fsdp_config, *config.deepspeed_config} <= known
    monkeypatch.setattr("accelerate.commands.launch.is_deepspeed_available", lambda: True, raising=False)
    args, environment = _launched(file)
    assert args.num_processes == 8
    refuse_unsupported(denoiser=False, bf16=True, environment=environment | {"RANK": "0"})
    sharded = {"ddp": (None, None), "fsdp2": ("true", None), "zero2": (None, "2"), "zero3": (None, "3")}[file.stem]
    assert sharded == (environment.get("ACCELERATE_USE_FSDP"), environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"))


def test_there_are_four_examples() -> None:
    assert [file.stem for file in CONFIGURATIONS] == ["ddp", "fsdp2", "zero2", "zero3"]


ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (FSDP | {"FSDP_VERSION": "1"}, "fsdp_version: 1: gradients would not reach the images; write fsdp_version: 2"),
        (FSDP | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading: true"),
        (FSDP | {"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params: true"),
        (FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "write false, and pass --gradient-checkpointing"),
        (ZERO3, "zero3_save_16bit_model: false: the checkpoint would be saved without weights; write true"),
        (ZERO3 | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "nowhere.json"}, "not a configuration of DeepSpeed"),
        ({"RANK": "0", "ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision: bf16: the training would not know"),
        ({"PARALLELISM_CONFIG_TP_SIZE": "2"}, "parallelism_config_tp_size: splits rows or layers; leave it at 1"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "distributed_type: MEGATRON_LM: is not supported"),
    ],
)
def test_what_cannot_be_sharded_is_refused_before_anything_is_loaded(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = ["train", "at-sft", "--model", "nowhere", "--data", "phantom:split=train,images=8"]
    monkeypatch.setattr("safemed_eval.cli.train.find_model", lambda **_: None)
    result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "new")])
    assert isinstance(result.exception, UserError) and said in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_sharded_denoiser_is_refused() -> None:
    with pytest.raises(UserError, match="a denoiser is too small to be sharded; use MULTI_GPU"):
        refuse_unsupported(denoiser=True, bf16=False, environment=FSDP)


@pytest.mark.parametrize(("own", "saves"), [({}, False), ({"stage3_gather_16bit_weights_on_model_save": True}, True)])
def test_a_configuration_of_deepspeed_is_read(own: dict[str, Any], saves: bool, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 3} | own}))
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "ds.json")}
    with nullcontext() if saves else pytest.raises(UserError, match="zero3_save_16bit_model"):
        refuse_unsupported(denoiser=False, bf16=False, environment=environment)
