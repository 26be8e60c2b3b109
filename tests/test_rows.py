"""A model of your own may return its scores as rows, each as long as its question has options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from safemed_eval.core import Question
from safemed_eval.errors import ModelOutputError
from safemed_eval.models.waist import Waist

FOUR, TWO, THREE = (Question(text="?", options=tuple("ABCD"[:n])) for n in (4, 2, 3))
CPU = torch.device("cpu")


class Rows:
    """Scores by the mean colour; `shape` makes of the rows what is returned."""

    def __init__(self, shape: Callable[[list[torch.Tensor]], Any]) -> None:
        self.shape = shape

    def scores(self, canvas: torch.Tensor, questions: Sequence[Question]) -> Any:
        means = canvas.mean((1, 2, 3))
        return self.shape(
            [mean * torch.arange(1.0, len(q.options) + 1) for mean, q in zip(means, questions, strict=True)]
        )


def padded(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.nn.functional.pad(row, (0, 4 - len(row)), value=7.0) for row in rows])


@pytest.mark.parametrize(
    "shape", [list, tuple, lambda rows: list(padded(rows)), lambda rows: [r.double() for r in rows]]
)
def test_rows_say_what_a_padded_tensor_says(shape: Callable[[list[torch.Tensor]], Any]) -> None:
    canvas, slopes, found = torch.rand((3, 3, 4, 4)).requires_grad_(), [], []
    for each in (padded, shape):
        log_probs = Waist(Rows(each), CPU).classify([FOUR, TWO, THREE])(canvas)
        slopes.append(torch.autograd.grad(log_probs[:, 0].sum(), canvas)[0])
        found.append(log_probs)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*slopes)
    assert found[1].isneginf().sum() == 3 and slopes[1].isfinite().all() and slopes[1].flatten(1).any(1).all()


def test_votes_are_counted_from_rows() -> None:
    assert Waist(Rows(list), CPU).vote(TWO).count([torch.rand((5, 3, 4, 4))]) == (0, 5, 0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (lambda rows: rows[:2], "2 rows of scores for 3 questions"),
        (lambda rows: [rows[0], rows[1][:1], rows[2]], r"row 1 of scores of shape \(1,\), expected \(2,\)"),
        (lambda rows: [row[None] for row in rows], r"row 0 of scores of shape \(1, 4\)"),
        (lambda rows: [row.tolist() for row in rows], "a row of scores of type list"),
        (lambda rows: [rows[0], rows[1] * torch.nan, rows[2]], "NaN or infinite scores for 1 of 3"),
    ],
)
def test_rows_that_do_not_fit_are_refused(shape: Callable[[list[torch.Tensor]], Any], words: str) -> None:
    with pytest.raises(ModelOutputError, match=words):
        Waist(Rows(shape), CPU).classify([FOUR, TWO, THREE])(torch.rand((3, 3, 4, 4)))
