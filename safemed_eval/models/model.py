"""The model as users hold it: found and checked by its files, loaded on first use."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safemed_eval.codec import typed
from safemed_eval.core import Dtype, Need, Question
from safemed_eval.errors import SpecError
from safemed_eval.grammar import after
from safemed_eval.models.checkpoints.prompts import Asking, Readout, Template, read_template
from safemed_eval.models.files.contents import Allowed
from safemed_eval.models.kinds import kind_of, resolve
from safemed_eval.models.loading import load_plain, prove_shortcuts, quiet_transformers
from safemed_eval.models.source import Source

if TYPE_CHECKING:
    from safemed_eval.models.checks.common import Finding
    from safemed_eval.models.waist import Waist

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, with how it is loaded and asked. Made by `find_model` and `load_model`.

    Can be pickled, without the loaded weights, unless it stands for an object of this process.

    Args:
        source: what the model is and where it comes from.
        device, dtype, attn, device_map, compile: see `find_model`.
        asking: how it is asked, completed by `Source.asked`; `given` is what the caller said of that.
        allowed: what may be done to load it, and further models beside it.
    """

    source: Source
    device: str = "auto"
    dtype: Dtype = "auto"
    attn: str | None = None
    device_map: str | None = None
    compile: bool = False
    asking: Asking
    given: Asking = field(default_factory=Asking)
    allowed: Allowed = field(default_factory=Allowed)

    @property
    def name(self) -> str:
        """The model's name as the user wrote it, or the class of an object."""
        return self.source.name

    @property
    def waist(self) -> Waist:
        """The loaded model: `.classify(questions)` and `.vote(question)`. Loads it on first use."""
        if "_proved" not in vars(self):
            prove_shortcuts(self._loaded, compiled=self.compile)
            vars(self)["_proved"] = True
        return self._loaded

    @cached_property
    def _loaded(self) -> Waist:
        if self.source.takes_prompts:
            quiet_transformers()
        return load_plain(
            self.source,
            device=self.device,
            dtype=self.dtype,
            attn=self.attn,
            device_map=self.device_map,
            asking=self.asking,
        )

    def prepared(
        self,
        *,
        size: tuple[int, int],
        options: int,
        questions: Sequence[Question] = (),
        needs: Mapping[Need, str],
        may_be_blind: bool = False,
    ) -> tuple[Waist, list[Finding]]:
        """Get the model ready for a run: load it unless it is, prove its shortcuts, and check it.

        Args:
            size: height and width of the run's images.
            options: the largest number of options that a question of the run has.
            questions: some of the run, the shortest and the longest among them.
            needs: what the run asks of the model beside its answers, each with the option that asks.
            may_be_blind: the run measures whether the model looks at images, and takes one that does not.
        Returns:
            The model, whose count of forwards begins anew, and the findings of all checks.
        Raises:
            CheckpointError: it cannot be loaded or asked, lacks what is needed, or fails a check.
        """
        from safemed_eval.models.check import check, refuse_failures, refuse_lacking, without_blindness
        from safemed_eval.models.checks.paths import check_canvas
        from safemed_eval.models.waist import Waist

        waist = Waist(self._loaded.scorer, self._loaded.device, self._loaded.denoiser)
        prove_shortcuts(waist, questions, size, compiled=self.compile)
        vars(self)["_proved"] = True
        refuse_lacking(waist, needs, self.name)
        findings = check(waist, size, options=options, questions=questions, gradients="gradients" in needs)
        if may_be_blind:
            findings = without_blindness(findings)
        refuse_failures(findings, self.name)
        return waist, [*findings, *check_canvas(waist, size)]

    def __getstate__(self) -> dict[str, Any]:
        if not self.source.can_be_sent:
            raise SpecError(
                f"the model {self.name} is an object of this process and cannot be sent to another one; name a folder, "
                "or a python:module:factory that makes it"
            )
        return {name: value for name, value in vars(self).items() if name not in ("_loaded", "_proved")}

    def __repr__(self) -> str:
        state = f"loaded on {self._loaded.device}" if "_loaded" in vars(self) else f"not loaded, device {self.device}"
        asked = f", readout {self.asking.readout}" if self.source.takes_prompts else ""
        behind = f", behind {self.source.denoiser.name}" if self.source.denoiser else ""
        return f"<Model {self.name!r}{behind}{asked}, dtype {self.dtype}; {state}>"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """A call of `Model.prepared` that is still to be made, in this process or another. Can be pickled.

    Args:
        model, size, options, questions, needs, may_be_blind: see `Model.prepared`.
        threads: of torch, in the process in which the call is made; None leaves them as they are.
    """

    model: Model
    size: tuple[int, int]
    options: int
    needs: Mapping[Need, str]
    questions: tuple[Question, ...] = ()
    may_be_blind: bool = False
    threads: int | None = None

    def __call__(self) -> tuple[Waist, list[Finding]]:
        """Load and check the model; see `Model.prepared`."""
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return self.model.prepared(
            size=self.size,
            options=self.options,
            questions=self.questions,
            needs=self.needs,
            may_be_blind=self.may_be_blind,
        )

    @property
    def source(self) -> Source:
        """Where the model comes from."""
        return self.model.source

    @property
    def device(self) -> str:
        """The device that the model is loaded onto."""
        return self.model.device

    def on(self, device: str, threads: int | None) -> Loading:
        """The same call for a process with this device and so many threads."""
        return replace(self, model=replace(self.model, device=device), threads=threads)


@typed
def find_model(
    model: object,
    *,
    denoiser: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    attn: str | None = None,
    device_map: str | None = None,
    compile: bool = False,
    readout: Readout = "choice",
    template: str | Template | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    seed: int = 0,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    offline: bool = False,
    base: str | None = None,
) -> Model:
    """Find a model and check everything that can be checked without torch; it is loaded on first use.

    Args:
        model: `builtin:NAME`, a checkpoint's or adapter's folder, `org/model[@revision]`, `python:module:factory`, a
            name of a plug-in's kind; or an object of your own (see `scorer.Scorer`), or a pair (network, processor) of
            transformers that is loaded already, in eval mode.
        denoiser: transforms every image before the model gets it: a folder of `train denoiser`,
            `python:module:factory`, or a program of torch.export.
        device: "auto" (CUDA where there is one, else the CPU; of a loaded network its own), "cpu", "cuda:1", ...
        dtype: "auto" (the checkpoint's own on an accelerator, float32 on the CPU), "float32", "bfloat16", "float16".
        attn: transformers' attention implementation.
        device_map: accelerate's placement, for a model that one device cannot hold.
        compile: compile a checkpoint's layers with torch.compile, for GPUs; only with the readout "choice".
        readout: "choice", "generate" or "think-choice"; see `Asking`.
        template: a template, its name, or its file. Without one, a checkpoint is asked as it was trained.
        max_new_tokens: where a generated text is cut off.
        temperature: 0 decodes greedily; above it, each row is sampled.
        seed: of the sampling.
        trust_remote_code: run Python code that comes with the checkpoint.
        allow_pickle: read pickled files, which can run code.
        offline: download nothing.
        base: the checkpoint that an adapter belongs to, where that is not at the place that the adapter names. It must
            hold the weights that the adapter was trained over, if those are recorded.
    Raises:
        SpecError: an argument is wrong, or has no effect on this kind of model.
        CheckpointError: files are missing or damaged, or not allowed.
    """
    if isinstance(template, str):
        template = read_template(template) if template else None
    try:
        asking = Asking(
            readout=readout, template=template, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
    except ValueError as error:
        raise SpecError(f"--readout {readout}: {error}") from None
    if compile and readout != "choice":
        raise SpecError(f"--compile: only letters are scored by compiled layers; leave it out with --readout {readout}")
    given: dict[str, object] = {"--dtype": dtype != "auto", "--attn": attn, "--device-map": device_map, "--base": base}
    given |= {"--readout": readout != "choice", "--template": template, "--compile": compile}
    _refuse_senseless(model, device, given)
    source = resolve(
        model,
        denoiser=denoiser,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        offline=offline,
        base=base,
    )
    if asking.template and source.template and asking.template != source.template:
        _log.warning(
            "--template: %s was trained on other words, and is asked in these; without --template it is asked as it "
            "was trained",
            source.name,
        )
    return Model(
        source=source,
        device=device,
        dtype=dtype,
        attn=attn,
        device_map=device_map,
        compile=compile,
        asking=source.asked(asking),
        given=asking,
        allowed=Allowed(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, offline=offline),
    )


@after(find_model)
def load_model(found: Model) -> Model:
    """Find a model and load it at once; arguments and errors as in `find_model`.

    >>> import safemed_eval as se
    >>> se.load_model("builtin:sft", device="cpu")
    <Model 'builtin:sft', readout choice, dtype auto; loaded on cpu>
    """
    _ = found.waist
    return found


def _refuse_senseless(model: object, device: str, given: Mapping[str, object]) -> None:
    """Refuse what cannot be a device, and options without effect, before a model's files are looked for.

    Args:
        given: options by name, with a value that is true where they are given.
    """
    if not re.fullmatch(r"[a-z]+(:[0-9]+)?", device):
        raise SpecError(f"--device {device}: not a device; write auto, cpu, cuda or cuda:1")
    kind = kind_of(model)
    for option, value in given.items():
        prompts = option in ("--readout", "--template", "--compile")
        effective = kind.takes_prompts if prompts else kind.takes_loading_options
        if value and not effective:
            raise SpecError(f"{option} has no effect on {kind.disregards}")


AnyModel = Model | str | Path | object
"""A model that is loaded or found, or what `load_model` takes."""
