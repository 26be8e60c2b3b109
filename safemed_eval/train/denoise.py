"""Training of a denoiser for a frozen model: denoised smoothing, Salman et al. 2020 (arXiv:2003.01908), white-box."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from safemed_eval.codec import Json
from safemed_eval.core import TRAINED_ON, Item
from safemed_eval.data import Canvas, canvas_of, write_seen
from safemed_eval.errors import ModelOutputError, RunError
from safemed_eval.files import write_whole
from safemed_eval.models.denoiser import ResidualDenoiser, Shape, save_denoiser
from safemed_eval.models.files.notes import ABOUT
from safemed_eval.models.waist import Waist
from safemed_eval.seeds import generator
from safemed_eval.train import _loop
from safemed_eval.train._log import Log
from safemed_eval.train.log import CHECKPOINTS, LOG, WORK, remove_checkpoints
from safemed_eval.train.recipe import DenoiserRecipe
from safemed_eval.train.watch.trainer import Watched


def fit_denoiser(
    model: Waist,
    items: Sequence[Item],
    canvas: Canvas,
    recipe: DenoiserRecipe,
    out: Path,
    *,
    about: Mapping[str, object],
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train a denoiser for this model, and save it into `out`, with a note of its making.

    Log and intermediate checkpoints are in `out/training`; a stopped training resumes from the last of these.

    Args:
        model: the frozen model, whose answers the denoiser preserves; it has scores, and no denoiser.
        canvas: canvas of the same size for all images.
        about: description of the training, saved with the denoiser.
    Raises:
        RunError: training has broken the denoiser, or the disk is full.
    """
    work, cpu = out / WORK, model.device.type == "cpu"
    work.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    denoiser = ResidualDenoiser(Shape(width=recipe.width, blocks=recipe.blocks)).to(model.device)
    # The second loss has gradients a hundred times larger than the first: second moments must adapt fast.
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    shared = {name: getattr(recipe, name) for name in ("steps", "batch_size", "save_every", "seed", "watch")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers
        trainer = _Denoising(
            model=denoiser,
            args=TrainingArguments(**_loop.arguments(work / CHECKPOINTS, **shared, cpu=cpu)),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)),
            train_dataset=_Rows(items, canvas),
            data_collator=_collate,
            callbacks=[Log(work / LOG), *callbacks],
            frozen=model,
            recipe=recipe,
        )
        trainer.remove_callback(PrinterCallback)
        with _loop.writing(out):
            trainer.train(resume_from_checkpoint=_loop.last_checkpoint(work / CHECKPOINTS))
    _loop.refuse_broken(denoiser)
    if trainer.is_world_process_zero():
        with _loop.writing(out):
            save_denoiser(denoiser, out)
            write_seen(out / TRAINED_ON, items)
            write_whole(out / ABOUT, json.dumps(about, indent=2, ensure_ascii=False))  # complete from here on
            if not recipe.watch.keep_checkpoints:
                remove_checkpoints(work)
    trainer.accelerator.wait_for_everyone()


class _Denoising(Watched):
    """Trains a denoiser D, first to remove noise d of sigma from an image x, then to preserve the answer of a model f.

    The loss of a row is at first

        || D(x + d) - x ||^2 / (3 H W)

    and after `mse_share` of the steps the cross-entropy of f(D(x + d)) to the likeliest option of f(x): the paper's
    MSE, followed by its STAB. No gold answer is used. Noise is seeded by item and step.

    Differs: AdamW with a warm-up and a cosine for each; the published code lowers its rate every 30 epochs.
    """

    def __init__(self, *args: object, frozen: Waist, recipe: DenoiserRecipe, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._frozen = frozen
        self._recipe = recipe

    def compute_loss(self, model: Any, inputs: Json, **_: object) -> torch.Tensor:
        items, clean, step = inputs["items"], inputs["canvas"], self.state.global_step
        noise = [self._noise(item, step, canvas.shape) for item, canvas in zip(items, clean, strict=True)]
        denoised = model(clean + torch.stack(noise).to(clean.device))
        if not bool(denoised.isfinite().all()):
            raise RunError(f"the denoiser's output is not finite at step {step}; try a lower --learning-rate")
        loss = F.mse_loss(denoised, clean)
        self.means.add("denoiser/mse", loss.item(), len(items))
        if step >= self._recipe.mse_steps:
            classify = self._frozen.classify([item.question for item in items])
            with torch.no_grad():
                own = classify(clean).argmax(1)
            try:
                log_probs = classify(denoised)
            except ModelOutputError as error:  # the clean images were answered just before
                raise RunError(
                    f"step {step}: training has broken the denoiser; behind it, {error}; try a lower "
                    "--stability-learning-rate"
                ) from error
            loss = F.nll_loss(log_probs, own)
            self.means.add("denoiser/same_answer", (log_probs.argmax(1) == own).float().mean().item(), len(items))
        return loss

    def _noise(self, item: Item, step: int, shape: torch.Size) -> torch.Tensor:
        rng = generator("cpu", self._recipe.seed, "denoiser", step, item.id)
        return torch.empty(shape).normal_(0, self._recipe.sigma, generator=rng)


class _Rows(torch.utils.data.Dataset[tuple[Item, torch.Tensor]]):
    """Items with their canvases, which are drawn or decoded on demand."""

    def __init__(self, items: Sequence[Item], canvas: Canvas) -> None:
        self.items = items
        self.canvas = canvas

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Item, torch.Tensor]:
        return self.items[index], canvas_of(self.items[index], self.canvas)


def _collate(rows: Sequence[tuple[Item, torch.Tensor]]) -> Json:
    return {"items": [item for item, _ in rows], "canvas": torch.stack([canvas for _, canvas in rows])}
