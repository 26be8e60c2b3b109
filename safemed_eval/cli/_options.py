"""Groups of options that several commands share, with the same names, help and checks everywhere.

A command takes a whole group as one parameter, `data: DataOptions`; `grouped` expands it to typer options.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from safemed_eval.core import MAX_BATCH, MAX_WORKERS, Dtype
from safemed_eval.data import Choice, Fit, choose_data, kinds
from safemed_eval.errors import SpecError, Stopped
from safemed_eval.models import Model, find_model
from safemed_eval.models.checkpoints.prompts import Readout
from safemed_eval.text import visible


def option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    """Declare an option, shown in this panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def noise_help() -> str:
    """The kinds of noise that are built in, each with the line that its file begins with.

    The files are read, not imported: they bring scipy.
    """
    files = sorted((Path(__file__).parents[1] / "smoothing/noise").glob("[!_]*.py"))
    return " ".join(str(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))) for file in files)


_model = functools.partial(option, panel="Model")
_data = functools.partial(option, panel="Data")
_run = functools.partial(option, panel="Run")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options for reading a checkpoint's files."""

    device: Annotated[str, _model(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[Dtype, _model(help="auto: the checkpoint's own on an accelerator, float32 on the CPU.")] = "auto"
    attn: Annotated[
        str | None, _model(help="Attention: eager, sdpa, flash_attention_2, ... Default: transformers' choice.")
    ] = None
    trust_remote_code: Annotated[
        bool, _model("--trust-remote-code", help="Run Python code that comes with the checkpoint.")
    ] = False
    allow_pickle: Annotated[bool, _model("--allow-pickle", help="Read pickled files, which can run code.")] = False
    base: Annotated[
        str | None,
        _model(help="The checkpoint that an adapter belongs to, where it is not at the place that the adapter names."),
    ] = None
    offline: Annotated[
        bool,
        _model(
            "--offline",
            help="Do not use the network: org/name is loaded from the local cache, or refused. Folders and builtin: "
            "never use it; a python: model may.",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class LoadOptions(FileOptions):
    """Options for loading and prompting a model, and for a denoiser before it."""

    denoiser: Annotated[
        str | None,
        _model(
            help="A denoiser that every image passes through before the model: a folder made by train denoiser, "
            "python:module:factory, or a program of torch.export (*.pt2, needs --allow-pickle)."
        ),
    ] = None
    device_map: Annotated[
        str | None, _model(help="Device map of accelerate, such as auto, for a model too large for one device.")
    ] = None
    compile: Annotated[
        bool,
        _model(
            "--compile",
            help="Compile the layers that score letters (torch.compile), for GPUs: about 1.3 times as fast, after half "
            "a minute or more. Votes near a tie may differ: a gate's baseline needs it, too. Not for generated texts.",
        ),
    ] = False
    readout: Annotated[
        Readout,
        _model(
            help="choice: the likeliest option letter, in one forward pass. generate: the model generates a text, "
            "which is parsed. think-choice: it generates a thought, and the likeliest letter after that counts."
        ),
    ] = "choice"
    template: Annotated[
        str | None,
        _model(
            help="Prompt template: letter, instruct (asks for <answer> tags), think (asks for <think> first), "
            "think-after (for <think> after the answer), or a text file. Default: the template of the checkpoint's "
            "training, if known; else letter, instruct for generate, think for think-choice."
        ),
    ] = None
    max_new_tokens: Annotated[int, _model(help="Longest generated answer or thought, in tokens.")] = 512
    temperature: Annotated[
        float,
        _model(
            help="Sampling temperature of generated texts: 0 decodes greedily, else each row is sampled with its own "
            "seed."
        ),
    ] = 0.0

    def find(self, model: str, seed: int = 0) -> Model:
        """Find the model of this name, without loading it."""
        return find_model(**{"seed": seed, **vars(self), "model": model})


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadOptions):
    """Options for choosing and loading the model."""

    model: Annotated[
        str,
        _model(
            help="A transformers checkpoint: a folder, a PEFT adapter's folder, org/name@revision on the hub, or "
            "builtin:sft and builtin:at-grpo. Or python:module:factory for a model of your own."
        ),
    ]


def _further_kinds() -> str:
    described = ("omnimedvqa", "medr1", "table", "phantom")
    return "".join(f"; {kind}:..." for kind in kinds() if kind not in described)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options for choosing items, and the canvas of their images."""

    data: Annotated[
        str,
        _data(
            help="omnimedvqa:DIR (raw layout), medr1:FILE_OR_DIR (Med-R1's splits), table:FILE (your own CSV, "
            f"TSV or JSONL), or phantom (drawn, nothing to download){_further_kinds()}."
        ),
    ]
    data_root: Annotated[
        Path | None,
        _data(
            help="Folder that image paths are relative to; default: the data's own. For medr1: the raw OmniMedVQA "
            "folder."
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
    skip_bad: Annotated[bool, _data("--skip-bad", help="Leave out items that cannot be used, and count them.")] = False

    def chosen(self, seed: int) -> Callable[[], Choice]:
        """The call that chooses the items, for the API, which first checks all that needs no data."""
        options = {name: value for name, value in vars(self).items() if name not in ("data", "data_root")}
        options |= {name: options[name] or () for name in ("modality", "question_type")}
        return functools.partial(choose_data, self.data, root=self.data_root, seed=seed, **options)


@dataclass(frozen=True, kw_only=True)
class AskedOptions(DataOptions):
    """Options for choosing items and the order of each question's options."""

    shuffle_options: Annotated[
        int | None,
        _data(
            metavar="SEED",
            help="Shuffle the options of each question by this seed, so that a letter that the model prefers, or that "
            "is often right in the data, gives no advantage.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options for the execution of a run and its output."""

    batch_size: Annotated[
        str | None,
        _run(
            metavar="INTEGER|auto",
            help="Rows per forward pass; halved when memory runs out. auto: chosen by measurement, which may differ "
            "between starts, and with it the last bits of scores. Default: 16, or 64 to certify on a GPU.",
        ),
    ] = None
    seed: Annotated[int, _run(help="Seed of samples, random starts and noise.")] = 0
    ray: Annotated[
        str | None,
        _run(
            metavar="local|ADDRESS",
            help="Share the work among Ray workers, each with its own copy of the model: local starts them on this "
            "machine, ADDRESS (HOST:PORT or auto) on a Ray cluster. The records are the same. Needs the ray extra.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        _run(
            min=1,
            max=MAX_WORKERS,
            help="Number of workers for --ray. Default: one per GPU; without GPUs, one for two cores.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        _run(help="Run folder. The same command again resumes a stopped run. Default: a name below runs/."),
    ] = None
    pseudonymize: Annotated[
        Path | None,
        _run(
            metavar="KEYFILE",
            help="Write pseudonyms for ids, paths and texts into the run folder: HMACs under the key in this file, "
            "which stays with you. Modality and question type stay as they are.",
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        _run(
            help="Run folder that compare will compare this run with: other options or data are refused before "
            "anything is computed."
        ),
    ] = None
    json: Annotated[bool, _run("--json", help="Print the summary as JSON instead of tables.")] = False

    @property
    def passed(self) -> dict[str, Any]:
        """The options in the form that `api.evaluate` and `api.certify` take.

        Raises:
            SpecError: --batch-size is neither a number within bounds nor auto.
        """
        size = self.batch_size
        if size not in (None, "auto") and not re.fullmatch(r"[0-9]{1,9}", size or ""):
            raise SpecError(f"--batch-size {size}: write a number from 1 to {MAX_BATCH}, or auto")
        passed = {name: value for name, value in vars(self).items() if name != "json"}
        return passed | {"batch_size": int(size) if size and size != "auto" else size, "out": self.out or "auto"}


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
