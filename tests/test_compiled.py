"""`--compile`: compiled layers are taken where they are proved, and what they are not proved for goes on without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import safemed_eval as se
from safemed_eval.core import Question
from safemed_eval.errors import RunError, SpecError
from safemed_eval.models import Model, find_model
from safemed_eval.models.checkpoints.proof import ROUNDING, rounds_worse
from safemed_eval.models.checkpoints.shortcuts import COMPILED, LAST_LAYER, PACKED, PREFIX

DATA = "phantom:images=1"
SHORT = Question(text="Which?", options=("CT", "MRI"))
LONG = Question(text="Which of these is the most likely finding? " * 4, options=("CT", "MRI", "X-Ray", "Ultrasound"))
IMAGES = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))


class Times(torch.nn.Module):
    """A module whose tensors are all multiplied, as a compiler that errs might do; what else it has is the inner's."""

    def __init__(self, inner: torch.nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def __getattr__(self, name: str) -> object:
        return super().__getattr__(name) if name in ("inner", "factor") else getattr(self.inner, name)

    def forward(self, *args: object, **kwargs: object) -> object:
        found = self.inner(*args, **kwargs)
        return found * self.factor if isinstance(found, torch.Tensor) else (found[0] * self.factor, *found[1:])


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let torch.compile return modules that multiply what they compute."""

    def times(factor: float) -> None:
        def multiplied(module: torch.nn.Module, *, dynamic: bool) -> Times:
            assert dynamic, "else the first prompt decides how the next are computed"
            return Times(module, factor)

        monkeypatch.setattr(torch, "compile", multiplied)

    return times


def sft(**options: str) -> Model:
    return find_model("builtin:sft", device="cpu", compile=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_compiler_is_noticed(
    compiler: Callable[[float], None], caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    compiler(1.01)
    found = sft(dtype=dtype).waist.offers.checkpoint
    assert found is not None and found.shortcuts == (LAST_LAYER, PACKED)
    assert found.refused[COMPILED].startswith("scores change by ")
    assert f"--compile: has no effect here: {found.refused[COMPILED]}" in caplog.messages


def test_a_compiler_that_errs_in_half_precision_alone_is_noticed(compiler: Callable[[float], None]) -> None:
    """bfloat16 has 8 bits: what its rounding hides in two images is measured over more of them, against float32."""
    compiler(1.0)
    right = sft(dtype="bfloat16").waist.offers.checkpoint
    assert right is not None and right.shortcuts == (LAST_LAYER, PACKED, COMPILED)

    def errs(self: Times, *args: object, **kwargs: object) -> object:
        found = self.inner(*args, **kwargs)
        hidden = found if isinstance(found, torch.Tensor) else found[0]
        factor = 1.5 if hidden.dtype == torch.bfloat16 else 1.0
        return hidden * factor if isinstance(found, torch.Tensor) else (hidden * factor, *found[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Times, "forward", errs)
        wrong = sft(dtype="bfloat16").waist.offers.checkpoint
    assert wrong is not None and wrong.shortcuts == (LAST_LAYER, PACKED)
    assert wrong.refused[COMPILED].endswith("without it") and "in half precision" in wrong.refused[COMPILED]


def test_rounding_is_measured_over_all_scores() -> None:
    exact, plain = torch.zeros(100), torch.full((100,), 0.01)
    assert rounds_worse(exact, plain, lambda: plain * ROUNDING) is None
    one_off = plain.clone()
    one_off[0] = 0.1
    assert rounds_worse(exact, plain, lambda: one_off) is None
    reason = rounds_worse(exact, plain, lambda: plain * ROUNDING * 1.1)
    assert reason == "scores are off by 0.044 in half precision, by 0.01 without it"


def test_a_machine_without_a_compiler_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Missing(torch.nn.Module):
        def forward(self, *_: object, **__: object) -> None:
            raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda module, *, dynamic: Missing())
    found = sft().waist.offers.checkpoint
    assert found is not None and found.shortcuts == (LAST_LAYER, PACKED)
    assert "no C++ compiler found" in found.refused[COMPILED] and "no C++ compiler found" in caplog.text


def test_a_network_whose_layers_are_not_found_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = sft()
    vlm = model._loaded.scorer
    monkeypatch.setattr(type(vlm.model), "get_encoder", lambda self, modality: {}[modality])
    assert model.waist.scorer is vlm and vlm.shortcuts == (PREFIX, LAST_LAYER, PACKED)
    assert "KeyError" in vlm.refused[COMPILED] and "KeyError" in caplog.text


def test_layers_are_the_networks_own_again_after_each_forward(compiler: Callable[[float], None]) -> None:
    compiler(1.0)
    model = sft()
    vlm = model.waist.scorer
    vlm.scores(IMAGES, [SHORT] * 3)
    assert COMPILED in vlm.shortcuts
    assert not [name for name, module in vlm.model.named_modules() if isinstance(module, Times)]


def test_it_is_part_of_what_the_run_was_asked(compiler: Callable[[float], None], tmp_path: Path) -> None:
    """A folder is not gone on with in another way, and one without the option says nothing of it."""
    compiler(1.0)
    with_it, without = tmp_path / "with", tmp_path / "without"
    se.evaluate(sft(), DATA, attacks=["clean"], out=with_it)
    se.evaluate(find_model("builtin:sft", device="cpu"), DATA, attacks=["clean"], out=without)
    asked, meta = (json.loads((place / "run.json").read_text()) for place in (with_it, without))
    assert asked["spec"]["load"]["compile"] is True and meta["spec"]["load"].keys() == {"dtype", "attn", "device_map"}
    assert asked["model"]["shortcuts"] == [LAST_LAYER, PACKED, COMPILED]
    assert meta["model"]["shortcuts"] == [PREFIX, LAST_LAYER, PACKED]
    assert se.Run.read(with_it).spec.load.compile and not se.Run.read(without).spec.load.compile
    with pytest.raises(RunError, match="compile"):
        se.evaluate(sft(), DATA, attacks=["clean"], out=without)


@pytest.mark.parametrize("readout", ["generate", "think-choice"])
def test_only_letters_are_scored_by_compiled_layers(readout: str) -> None:
    with pytest.raises(SpecError, match=rf"--compile: only letters .* leave it out with --readout {readout}"):
        sft(readout=readout)


@pytest.mark.parametrize("option", [{"compile": True}, {"device_map": "auto"}])
def test_training_refuses_what_it_would_not_do(option: dict[str, object], tmp_path: Path) -> None:
    model = find_model("builtin:sft", **option)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="has no effect on training"):
        se.train("sft", model, "phantom:split=train,images=4", out=tmp_path / "out", steps=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch 2.11's compiler uses it itself
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_layers_compute_the_same(dtype: str) -> None:
    """Scores, features and gradients, of one row and of several, of equal and of unequal prompts."""
    vlm = sft(dtype=dtype).waist.scorer
    if COMPILED not in vlm.shortcuts and "compiler" in vlm.refused[COMPILED].lower():
        pytest.skip(f"needs a C++ compiler: {vlm.refused[COMPILED]}")
    assert vlm.shortcuts == (LAST_LAYER, PACKED, COMPILED)
    bound = 1e-4 if dtype == "float32" else 0.5

    def asked(questions: list[Question]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = IMAGES[: len(questions)].clone().requires_grad_()
        scores = vlm.scores(pixels, questions)
        (gradient,) = torch.autograd.grad(scores[:, :2].log_softmax(1)[:, 0].sum(), pixels)
        return scores.detach(), gradient

    for questions in ([SHORT], [LONG] * 3, [SHORT, LONG, SHORT]):
        compiled, slope = asked(questions)
        taken, vlm.shortcuts = vlm.shortcuts, ()
        plain, plain_slope = asked(questions)
        vlm.shortcuts = taken
        torch.testing.assert_close(compiled[:, :2], plain[:, :2], atol=bound, rtol=0)
        cosine = torch.nn.functional.cosine_similarity(slope.flatten(), plain_slope.flatten(), 0)
        assert cosine > (0.9999 if dtype == "float32" else 0.9)
