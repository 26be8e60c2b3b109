"""Unit check for eps and sigma: pixels go from 0 to 1, and values on another scale are refused."""

from __future__ import annotations

GREY_LEVEL = 1 / 255
_WIDEST = 4.0
"""Largest accepted sigma: such noise leaves hardly anything of an image, and sigmas in grey levels are larger."""


def refuse_sigma(sigma: float, name: str = "sigma") -> None:
    """Raise ValueError where a noise standard deviation is not in [0, 1] pixel units.

    Below one grey level the noise is finer than the rounding of the 8-bit image that it is added to, and above 4 it is
    four times as wide as black to white: either is a unit mistake (0.25/255 for 0.25, 25 for 25/255), and a
    certificate under such noise means nothing.

    Args:
        name: the option's name, for the message.
    """
    if not sigma > 0:
        raise ValueError(f"{name} must be above 0, got {sigma:g}")
    if sigma < GREY_LEVEL:
        raise ValueError(
            f"{name}={sigma:g} is less than one grey level, 1/255: no 8-bit image shows such noise; pixels go from 0 "
            f"to 1, a quarter of that is written {name}=0.25"
        )
    if sigma > _WIDEST:
        raise ValueError(f"{name}={sigma:g} is more than all of [0, 1]; grey levels are written {name}=25/255")
