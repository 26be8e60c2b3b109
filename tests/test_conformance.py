"""One suite over every architecture: what the waist promises must hold for each of them.

On another device, or in half precision: SAFEMED_EVAL_TEST_DEVICE=cuda SAFEMED_EVAL_TEST_DTYPE=bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import DEVICE, DTYPE
from families import FAMILIES
from PIL import Image

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError
from safemed_eval.models import Asking, check, load, resolve
from safemed_eval.models.checkpoints.processor import official_inputs, pixel_inputs
from safemed_eval.models.checkpoints.prompts import TEMPLATES
from safemed_eval.models.checkpoints.shortcuts import LAST_LAYER, PACKED, PREFIX, SHORTCUTS
from safemed_eval.models.checkpoints.vlm import VLM
from safemed_eval.models.checks.paths import check_size
from safemed_eval.models.waist import Waist

pytestmark = pytest.mark.parametrize("family", FAMILIES)

Get = Callable[[str], Waist]

HALF = DTYPE != "float32"
ROUNDING = 0.1 if HALF else 1e-5
"""Between log-probabilities that are computed in batches of different shapes."""
exact = pytest.mark.skipif(HALF, reason="rounding to half precision is larger than what is compared")

RESIZED = ("idefics3_tiled",)
"""Families that resize these canvases: their 8-bit path rounds once more than the float path."""

ROUNDED = ("llama4",)
"""Families whose image processor computes in bfloat16: a flight of steps, whose gradient is that of the slope below."""

READS_AHEAD = ("paligemma",)
"""Families that look at a prompt, and at what is written behind it, in both directions."""

SHORTCUTS_OF = {
    **dict.fromkeys(("internvl", "idefics3", "idefics3_tiled", "llava", "llava_onevision"), (PREFIX, LAST_LAYER)),
    **dict.fromkeys(("cohere2", "gemma3", "molmo2", "paligemma"), (LAST_LAYER,)),
    "qwen3_5": (LAST_LAYER, PACKED),
    **dict.fromkeys(("mllama", "llama4"), ()),
}
"""Families that cannot take all shortcuts: images see each other both ways, or lie side by side, a window shorter than
the prompt, states that are no keys, other names."""


PACKED_LATER = ("mistral3",)
"""Families whose tower says where images begin in newer versions of transformers only."""


UNTOLD, PIECES = ("molmo2",), ("llava_onevision", "idefics3_tiled", "mllama")
"""Families whose image inputs do not tell the size of an image, and those that make several images of one."""


def test_a_canvas_of_the_proposed_size_arrives_as_it_is(waist: Get, family: str, questions: list[Question]) -> None:
    if family in UNTOLD:
        (finding,) = check_size(waist(family), (60, 60), questions[0])
        assert (finding.status, finding.canvas) == ("n/a", None)
        return
    vlm = waist(family).offers.checkpoint
    assert vlm is not None
    found = vlm.image_size(torch.zeros(3, 60, 60), questions[0])
    assert found is not None and (found.images > 1) == (family in PIECES)
    (finding,) = check_size(waist(family), (60, 60), questions[0])
    if family in PIECES:
        assert finding.canvas is None and f"{found.images} images" in finding.detail
        return
    assert finding.canvas == f"{found.size[0]}x{found.size[1]}"
    assert vlm.image_size(torch.zeros(3, *found.size), questions[0]) == found


def picture(canvas: torch.Tensor) -> Image.Image:
    return Image.fromarray((canvas * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def vlm_of(waist: Waist) -> VLM:
    assert isinstance(waist.scorer, VLM)
    return waist.scorer


def inputs_for(vlm: VLM, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
    """The official inputs in the type of the model: the processor of Llama 4 makes bfloat16."""
    inputs, _ = official_inputs(vlm.processor, image, prompt)
    return vlm._to_model(inputs)


def test_the_waist_equals_the_official_processor_and_model(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    """A mixed batch of float canvases against PIL image -> processor -> model with its full head, one at a time."""
    ours = waist(family).classify(questions)(canvases)
    for row, question in enumerate(questions):
        official = vlm_of(waist(family)).official_scores(picture(canvases[row]), question).log_softmax(0)
        close = max(5e-3 if family in RESIZED else 0, ROUNDING)
        torch.testing.assert_close(ours[row, : len(official)], official.to(DEVICE), atol=close, rtol=0)
        assert ours[row, len(official) :].eq(-torch.inf).all()


def test_pixels_equal_the_official_ones(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    """Equal to rounding where nothing is resized, else to two grey levels, one for each resize."""
    processor = vlm_of(waist(family)).processor
    official, call = official_inputs(
        processor, picture(canvases[0]), vlm_of(waist(family)).prompt(questions[0], "Answer:")
    )
    ours = pixel_inputs(processor, canvases[:1], call)
    for name in call.outputs:
        close = 2 / 127.5 if family in RESIZED else 2e-6
        torch.testing.assert_close(ours[name].cpu().double(), official[name].double(), atol=close, rtol=0)


def test_the_mean_colour_is_what_becomes_0(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    """It is what bands of columns leave of an image; see `smoothing.bands`."""
    loaded = waist(family)
    canvas = torch.tensor(loaded.fill, device=loaded.device).view(3, 1, 1).expand_as(canvases[0])
    _, _, values = vlm_of(loaded).image_inputs(canvas, questions[0])
    assert float(values.abs().max()) < (0.01 if family in ROUNDED else 1e-5)


def test_the_answer_is_what_generate_would_say_next(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    """The letters' log-probabilities are those of `generate` for its first token."""
    vlm = vlm_of(waist(family))
    for row, question in enumerate(questions):
        inputs = inputs_for(vlm, picture(canvases[row]), vlm.prompt(question, "Answer:"))
        generated = vlm.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        logits = generated.logits[0][0, vlm.letters(len(question.options))].float()
        ours = waist(family).classify([question])(canvases[row : row + 1])[0]
        close = max(5e-3 if family in RESIZED else 0, ROUNDING)
        torch.testing.assert_close(ours, logits.log_softmax(0), atol=close, rtol=0)


def test_a_batch_equals_its_rows(family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]) -> None:
    """Different questions, left-padded together, against batches of one: 1e-5."""
    together = waist(family).classify(questions)(canvases)
    for row, question in enumerate(questions):
        alone = waist(family).classify([question])(canvases[row : row + 1])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=ROUNDING, rtol=0)


def test_rows_are_independent(family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]) -> None:
    """No gradient flows from one row's answer to another row's pixels."""
    canvas = canvases.clone().requires_grad_()
    waist(family).classify(questions)(canvas)[1, 0].backward()
    assert canvas.grad is not None
    assert canvas.grad[1].abs().max() > 0
    assert canvas.grad[[0, 2]].abs().max() == 0


def test_gradient_reaches_every_pixel_that_the_processor_keeps(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    canvas = canvases[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(waist(family).classify(questions[:1])(canvas)[0, 0], canvas)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(1).double().mean() > 0.99


@exact
def test_gradient_agrees_with_finite_differences_in_float64(
    family: str, checkpoint: Callable[[str], object], canvases: torch.Tensor, questions: list[Question]
) -> None:
    """A directional derivative of the letter logits, model in double precision, four-point stencil.

    Where the processor rounds, of the slope: its gradient is the one through the steps, to their 1 %.
    """
    loaded = load(resolve(str(checkpoint(family))), device=DEVICE, dtype=DTYPE)
    vlm = vlm_of(loaded)
    vlm.model.double()
    vlm.take_shortcuts()
    direction = torch.randn(canvases[:1].shape, generator=torch.Generator().manual_seed(0)).double().to(DEVICE)
    canvas = canvases[:1].double().requires_grad_()
    (gradient,) = torch.autograd.grad(vlm.scores(canvas, questions[:1])[0, 0], canvas)
    if family in ROUNDED:
        stepped, inner = gradient, vlm.processor.image_processor
        inner.rescale_and_normalize = super(type(inner), inner).rescale_and_normalize
        (gradient,) = torch.autograd.grad(vlm.scores(canvas, questions[:1])[0, 0], canvas)
        assert 0 < (stepped - gradient).norm() < 0.01 * gradient.norm()
    step = 5e-4

    def value(multiple: int) -> float:
        with torch.no_grad():
            return float(vlm.scores(canvas + multiple * step * direction, questions[:1])[0, 0])

    slope = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_noise_far_outside_the_range_is_accepted(
    family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]
) -> None:
    noisy = canvases + 2 * torch.randn(canvases.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    votes = waist(family).vote(questions[0])(noisy)
    assert votes.shape == (3,) and ((votes >= 0) & (votes < 4)).all()


@exact
def test_what_is_written_is_what_generate_writes(
    family: str, checkpoint: Callable[[str], object], canvases: torch.Tensor, questions: list[Question]
) -> None:
    """A mixed batch against the untouched path, image by image, with transformers' own greedy decoding."""
    asking = Asking(readout="generate", template=TEMPLATES["instruct"], max_new_tokens=6)
    loaded = load(resolve(str(checkpoint(family))), device=DEVICE, dtype=DTYPE, asking=asking)
    texts = loaded.answer(canvases, questions).texts
    vlm = vlm_of(loaded)
    for row, question in enumerate(questions):
        inputs = inputs_for(vlm, picture(canvases[row]), vlm.prompt(question, ""))
        ids = vlm.model.generate(**inputs, max_new_tokens=6, do_sample=False)
        tokenizer = vlm.processor.tokenizer
        written = [one for one in ids[0, inputs["input_ids"].shape[1] :].tolist() if one != tokenizer.eos_token_id]
        text = tokenizer.decode([one for one in written if one != tokenizer.pad_token_id])
        assert texts is not None and texts[row] == text
        assert loaded.official(picture(canvases[row]), question).texts == [text]


@pytest.mark.slow
def test_a_forced_text_is_as_likely_as_when_it_is_written(
    family: str, checkpoint: Callable[[str], object], canvases: torch.Tensor, questions: list[Question]
) -> None:
    """One forward over texts of different lengths, in one batch, against token by token with a cache, one at a time."""
    asking = Asking(readout="generate", template=TEMPLATES["instruct"])
    loaded = load(resolve(str(checkpoint(family))), device=DEVICE, dtype=DTYPE, asking=asking)
    vlm, texts = vlm_of(loaded), ["a lung <answer> B </answer>", "<answer> A", "It is C."]
    likelihood = loaded.classify(questions).likelihood  # type: ignore[attr-defined]
    if family in READS_AHEAD:
        with pytest.raises(CheckpointError, match="reads a text as a whole"):
            likelihood(canvases, texts)
        return
    expected = []
    for row, question in enumerate(questions):
        inputs, _ = official_inputs(vlm.processor, picture(canvases[row]), vlm.prompt(question, ""))
        tokens = vlm.processor.tokenizer(texts[row], add_special_tokens=False)["input_ids"]
        start = inputs["input_ids"].shape[1]
        found = vlm.model.generate(
            **vlm._to_model(inputs),
            max_new_tokens=len(tokens),
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            prefix_allowed_tokens_fn=lambda _, ids, tokens=tokens, start=start: [tokens[len(ids) - start]],
        )
        steps = [logits[0].float().log_softmax(0)[token] for logits, token in zip(found.logits, tokens, strict=True)]
        expected.append(float(torch.stack(steps).mean()))
    close = max(5e-3 if family in RESIZED else 1e-4, ROUNDING)
    assert likelihood(canvases, texts).tolist() == pytest.approx(expected, abs=close)


def test_shortcuts_change_nothing(family: str, waist: Get, canvases: torch.Tensor, questions: list[Question]) -> None:
    """With and without what is left out: the same scores and gradients."""
    vlm = vlm_of(waist(family))
    expected = SHORTCUTS_OF.get(family, SHORTCUTS)
    if HALF:  # where batch shapes show no noise at all, not all can be proved
        assert {*vlm.shortcuts} <= {*expected}
    else:
        assert vlm.shortcuts == expected or (family in PACKED_LATER and vlm.shortcuts == (PREFIX, LAST_LAYER))
    canvas = canvases.clone().requires_grad_()
    found = []
    for shortcuts in ((), vlm.shortcuts):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vlm, "shortcuts", shortcuts)
            log_probs = waist(family).classify(questions)(canvas)
            (gradient,) = torch.autograd.grad(log_probs[:, 0].sum(), canvas)
        found.append((log_probs.detach(), gradient))
    (plain, plain_slope), (short, slope) = found
    torch.testing.assert_close(short, plain, atol=ROUNDING, rtol=1e-4)
    if HALF:
        assert torch.cosine_similarity(slope.flatten(), plain_slope.flatten(), dim=0) > 0.98
    else:
        torch.testing.assert_close(slope, plain_slope, atol=1e-5, rtol=1e-4)


def test_models_check_passes(family: str, waist: Get) -> None:
    for size in ((384, 384), (56, 80)):
        failed = [finding for finding in check.check(waist(family), size) if finding.status == "fail"]
        assert not failed
