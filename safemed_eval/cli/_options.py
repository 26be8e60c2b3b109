"""Options that several commands share, as groups: same names, same help, same checks everywhere.

A command takes a whole group as one parameter, `data: DataOptions`; `grouped` turns it into its options for typer.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

import typer

from safemed_eval.core import MAX_BATCH, BatchSize
from safemed_eval.data import Choice, Fit, choose_data
from safemed_eval.errors import SpecError, Stopped
from safemed_eval.models import Model, find_model
from safemed_eval.models.checkpoints.prompts import Readout
from safemed_eval.text import visible

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


_model = functools.partial(option, panel="Model")
_data = functools.partial(option, panel="Data")
_run = functools.partial(option, panel="Run")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """How a checkpoint's files are read."""

    device: Annotated[str, _model(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[Dtype, _model(help="auto: the checkpoint's own on an accelerator, float32 on the CPU.")] = "auto"
    attn: Annotated[
        str | None, _model(help="Attention: eager, sdpa, flash_attention_2, ... Default: transformers' choice.")
    ] = None
    trust_remote_code: Annotated[
        bool, _model("--trust-remote-code", help="Run Python code that comes with the checkpoint.")
    ] = False
    allow_pickle: Annotated[bool, _model("--allow-pickle", help="Read pickled files, which can run code.")] = False
    offline: Annotated[
        bool,
        _model(
            "--offline",
            help="Ask the network for nothing: org/name comes from the local cache, or is refused. Folders and "
            "builtin: never ask it; a python: model may.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class LoadOptions(FileOptions):
    """How a model is loaded and asked, and what stands before it."""

    denoiser: Annotated[
        str | None,
        _model(
            help="What every image goes through before the model sees it: a folder made by train denoiser, "
            "python:module:factory, or a program of torch.export (*.pt2, needs --allow-pickle)."
        ),
    ] = None
    device_map: Annotated[
        str | None, _model(help="accelerate's placement, such as auto, for a model too large for one device.")
    ] = None
    readout: Annotated[
        Readout,
        _model(
            help="choice: the likeliest option letter, in one forward. generate: the model writes, and is parsed. "
            "think-choice: it writes its thought, and the likeliest letter after that counts."
        ),
    ] = "choice"
    template: Annotated[
        str | None,
        _model(
            help="How a checkpoint is asked: letter, instruct (asks for <answer> tags), think (for <think> first), or "
            "a text file. Default: as it was trained, where that is known; else letter, instruct for generate, think "
            "for think-choice."
        ),
    ] = None
    max_new_tokens: Annotated[int, _model(help="Where a generated answer, or thought, is cut off.")] = 512
    temperature: Annotated[
        float, _model(help="Of generated answers: 0 decodes greedily, above it each row is sampled with its own seed.")
    ] = 0.0

    def find(self, model: str, seed: int = 0) -> Model:
        """Find the model of this name; it is not loaded."""
        return find_model(**{"seed": seed, **vars(self), "model": model})


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadOptions):
    """Which model, and how it is loaded."""

    model: Annotated[
        str,
        _model(
            help="A transformers checkpoint: a folder, a PEFT adapter's folder, org/name@revision on the hub, or "
            "builtin:sft and builtin:at-grpo. Or python:module:factory for a model of your own."
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which items, and the canvas that their images are brought to."""

    data: Annotated[
        str,
        _data(
            help="omnimedvqa:DIR (raw layout), medr1:FILE_OR_DIR (Med-R1's splits), table:FILE (your own CSV or "
            "JSONL), or phantom (drawn, nothing to download)."
        ),
    ]
    data_root: Annotated[
        Path | None,
        _data(
            help="Folder that image paths are relative to, if not the data's own. For medr1: the raw OmniMedVQA folder."
        ),
    ] = None
    per_group: Annotated[
        int | None, _data(help="Take this many items of each modality x question type, drawn by --seed.")
    ] = None
    limit: Annotated[int | None, _data(help="Take at most this many items, drawn by --seed.")] = None
    modality: Annotated[list[str] | None, _data(help="Only this modality, such as CT. May be repeated.")] = None
    question_type: Annotated[
        list[str] | None, _data(help="Only this question type, such as 'Disease Diagnosis'. May be repeated.")
    ] = None
    canvas: Annotated[
        str | None,
        _data(
            help="HxW or native: the pixel grid on which eps, sigma and radius are measured. "
            "Default: the data's own, 64x64 for phantom, 384x384 for the others."
        ),
    ] = None
    fit: Annotated[Fit, _data(help="Stretch to the canvas, or keep the aspect ratio and pad with black.")] = "stretch"
    skip_bad: Annotated[
        bool, _data("--skip-bad", help="Run without the items that cannot be used, and count them.")
    ] = False

    def chosen(self, seed: int) -> Choice:
        """The items that these options choose, whose images are not read yet."""
        options = {name: value for name, value in vars(self).items() if name not in ("data", "data_root")}
        options |= {name: options[name] or () for name in ("modality", "question_type")}
        return choose_data(self.data, root=self.data_root, seed=seed, **options)


@dataclass(frozen=True, kw_only=True)
class AskedOptions(DataOptions):
    """Which items, and in which order the options of a question are asked."""

    shuffle_options: Annotated[
        int | None,
        _data(
            metavar="SEED",
            help="Ask the options of each question in an order drawn by this seed: a letter that the model prefers, or "
            "that the data favours, then gains nothing.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run goes, and where to."""

    batch_size: Annotated[
        str | None,
        _run(
            metavar="INTEGER|auto",
            help="Rows that go through the model together; halved when memory runs out. auto: found by trying what is "
            "worth its memory, which may differ between starts, and with it the last bits of scores. Default: 16, or "
            "64 to certify on a GPU.",
        ),
    ] = None
    seed: Annotated[int, _run(help="Seed of samples, random starts and noise.")] = 0
    ray: Annotated[
        str | None,
        _run(
            metavar="local|ADDRESS",
            help="Share the work among workers, a model each: local starts them on this machine, ADDRESS (HOST:PORT or "
            "auto) on a Ray cluster. The records are the same. Needs the ray extra.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        _run(min=1, max=4096, help="Workers of --ray. Default: one per GPU; without GPUs, one for two cores."),
    ] = None
    out: Annotated[
        Path | None,
        _run(help="Run folder. The same command again goes on where it stopped. Default: a name below runs/."),
    ] = None
    pseudonymize: Annotated[
        Path | None,
        _run(
            metavar="KEYFILE",
            help="Write pseudonyms for ids, paths and texts into the run folder: HMACs under the key in this file, "
            "which stays with you. Modality and question type stay as they are.",
        ),
    ] = None
    json: Annotated[bool, _run("--json", help="Print the summary as JSON instead of tables.")] = False

    @property
    def passed(self) -> Passed:
        """The options as `api.evaluate` and `api.certify` take them.

        Raises:
            SpecError: --batch-size is neither a number within bounds nor auto.
        """
        size = self.batch_size
        if size not in (None, "auto") and not re.fullmatch(r"[0-9]{1,9}", size or ""):
            raise SpecError(f"--batch-size {size}: write a number from 1 to {MAX_BATCH}, or auto")
        return Passed(
            batch_size=int(size) if size and size != "auto" else size,  # type: ignore[typeddict-item]
            seed=self.seed,
            ray=self.ray,
            workers=self.workers,
            out=self.out or "auto",
            pseudonymize=self.pseudonymize,
        )


class Passed(TypedDict):
    """How a run goes, and where to."""

    batch_size: BatchSize
    seed: int
    ray: str | None
    workers: int | None
    out: str | Path
    pseudonymize: Path | None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of `command` that is an option group by the group's own options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    flat: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            flat[name] = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        annotations = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            flat[field.name] = inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=annotations[field.name],
            )

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        try:
            command(**values)
        except Stopped as stopped:
            typer.echo(f"\n{visible(stopped)}", err=True)
            raise typer.Exit(130) from None

    required_first = sorted(flat.values(), key=lambda p: p.default is not inspect.Parameter.empty)
    run.__signature__ = inspect.Signature(required_first)  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in flat.items()}
    return run
