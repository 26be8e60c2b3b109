"""A model that is still to be loaded: what it takes to do so in this process or in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from safemed_eval import models
from safemed_eval.core import Need, Question
from safemed_eval.models.check import Finding, check, refuse_failures, refuse_lacking
from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.files.source import Source
from safemed_eval.models.waist import Waist


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a model is loaded, and what a run will ask of it. Can be pickled.

    Args:
        source, device, dtype, attn, device_map, asking: as in `models.load`.
        size: height and width of the images that it is checked with.
        options: the largest number of options that a question of the run has.
        questions: some of the run, the shortest and the longest among them.
        needs: what the run asks of it beside its answers, each with the option that asks.
        threads: of torch, in the process in which it is loaded; None leaves the choice to torch.
    """

    source: Source
    device: str
    dtype: str
    attn: str | None
    device_map: str | None
    asking: Asking
    size: tuple[int, int]
    options: int
    needs: Mapping[Need, str]
    questions: tuple[Question, ...] = ()
    threads: int | None = None

    def __call__(self) -> tuple[Waist, list[Finding]]:
        """Load the model, and check it.

        Raises:
            CheckpointError: it cannot be loaded, cannot be asked, lacks what is needed, or fails a check.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        waist = models.load(
            self.source,
            device=self.device,
            dtype=self.dtype,
            attn=self.attn,
            device_map=self.device_map,
            asking=self.asking,
            questions=self.questions,
            size=self.size,
        )
        refuse_lacking(waist, self.needs, self.source.name)
        gradients = "gradients" in self.needs
        findings = check(waist, self.size, options=self.options, questions=self.questions, gradients=gradients)
        refuse_failures(findings, self.source.name)
        return waist, findings
