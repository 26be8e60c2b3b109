"""The lattice of 1/4096 grey level, on which an image plus noise is exact in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

SCALE = 4096 * 255
"""Points of the lattice between black and white. Every 8-bit grey level is one of them."""


def rounded(canvas: torch.Tensor) -> torch.Tensor:
    """Round float64 values in [0, 1] units, or some way outside of it, to the lattice: float32."""
    return ((canvas * SCALE).round_() / SCALE).float()


def to_lattice(canvas: torch.Tensor) -> torch.Tensor:
    """Number of the nearest lattice point for each value of a canvas in [0, 1] units, as whole float32."""
    return (canvas.double() * SCALE).round_().float()


def on_lattice(canvas: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Add whole numbers of lattice steps to a canvas, exactly, and return it in [0, 1] units as float32.

    The gradient with respect to the canvas is that of a plain sum.
    """
    exact = (to_lattice(canvas.detach()) + drawn).div_(SCALE)
    return canvas + (exact - canvas).detach() if canvas.requires_grad else exact


def toward(canvas: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """Cut each change of a canvas to whole lattice steps, so that none grows."""
    steps = ((moved.double() - canvas.double()) * SCALE).trunc_()
    return ((to_lattice(canvas).double() + steps) / SCALE).float()


def random_steps(
    canvas: torch.Tensor,
    n: int,
    rng: torch.Generator,
    kind: Literal["normal", "uniform"],
    to_steps: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Draw whole numbers of lattice steps for n copies of a canvas: (n, 3, H, W) float32, on its device.

    On a CPU NumPy draws, twice as fast as torch does, from a seed that the generator gives. A device without float64
    gets its numbers from the CPU.

    Args:
        kind: of the numbers that are drawn in float64: standard normal, or uniform in [0, 1).
        to_steps: turns these into whole numbers, in place.
    """
    import numpy as np
    import torch

    shape = canvas.shape[-3:]
    if canvas.device.type == "cuda":
        drawn = torch.empty((n, *shape), dtype=torch.float64, device=canvas.device)
        return to_steps(drawn.normal_(generator=rng) if kind == "normal" else drawn.uniform_(generator=rng)).float()
    seed = torch.randint(2**62, (1,), generator=rng, device=rng.device).cpu().numpy()[0]
    source = np.random.Generator(np.random.SFC64(np.random.SeedSequence([rng.initial_seed(), int(seed)])))
    steps, block = torch.empty((n, *shape)), np.empty(_BLOCK)
    every = steps.view(-1)
    for start in range(0, len(every), _BLOCK):
        numbers = block[: len(every) - start]
        if kind == "normal":
            source.standard_normal(out=numbers)
        else:
            source.random(out=numbers)
        every[start : start + _BLOCK] = to_steps(torch.from_numpy(numbers))
    return steps.to(canvas.device)


_BLOCK = 2**14
"""Numbers that are drawn at a time: they stay in the processor's cache, and torch starts no threads for so few."""
