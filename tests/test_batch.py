"""The batch size that is found by trying, on models whose time and memory are made up."""

from __future__ import annotations

import pytest
import torch
from toys import Net

from safemed_eval.api._start import Options
from safemed_eval.cli._options import RunOptions
from safemed_eval.core import BatchSize
from safemed_eval.errors import SpecError
from safemed_eval.models.batch import MOST, batch_of, find_batch
from safemed_eval.models.waist import Waist

CPU = torch.device("cpu")


class Machine(Net):
    """A forward takes a fixed time and some for each row, on a clock of its own; memory ends somewhere."""

    def __init__(self, fixed: float, each: float, most: int = 10**6) -> None:
        super().__init__()
        self.fixed, self.each, self.most = fixed, each, most
        self.now, self.largest = 0.0, 0

    def scores(self, canvas: torch.Tensor, questions: object) -> torch.Tensor:
        if len(canvas) > self.most:
            raise torch.OutOfMemoryError("full")
        self.now += self.fixed + self.each * len(canvas)
        self.largest = max(self.largest, len(canvas))
        return super().scores(canvas, questions)


def find(machine: Machine, capacity: float = 1e9, *, gradients: bool = False) -> int:
    return find_batch(
        Waist(machine, CPU),
        (8, 9),
        gradients=gradients,
        clock=lambda: machine.now,
        fullness=lambda device: machine.largest / capacity,
    )


@pytest.mark.parametrize("gradients", [False, True])
def test_it_grows_until_it_stops_paying(gradients: bool) -> None:
    """A row of a batch of b takes 1 + 10 / b: from 64 to 128 that is 7 % less, from 128 to 256 only 4 %."""
    assert find(Machine(10, 1), gradients=gradients) == 128
    assert find(Machine(0, 1), gradients=gradients) == 1
    assert find(Machine(1e9, 1), gradients=gradients) == MOST


def test_it_stops_where_memory_ends() -> None:
    assert find(Machine(1e9, 1, most=100)) == 64
    assert find(Machine(1e9, 1), capacity=40) == 32


def test_the_command_line_asks_for_a_batch() -> None:
    model = Waist(Machine(10, 1), CPU)
    assert batch_of(None, 16, model, (8, 9), gradients=False) == 16
    assert batch_of(5, 16, model, None, gradients=False) == 5
    assert batch_of("auto", 16, Waist(Machine(0, 1e-9), CPU), (8, 9), gradients=True) >= 1
    assert batch_size_of() is None and batch_size_of(batch_size="auto") == "auto"
    assert batch_size_of(batch_size="65536") == 65536
    for wrong in ("0", "65537", "-1", "many", "1.5", "", "\u0661"):
        with pytest.raises(SpecError, match="write a number from 1 to 65536, or auto"):
            batch_size_of(batch_size=wrong)


def batch_size_of(**asked: str) -> BatchSize:
    """What the command line passes on, as the library takes it."""
    return Options(batch_size=RunOptions(**asked).passed["batch_size"]).batch_size
