"""The scale of eps and sigma: pixels go from 0 to 1. A number that only makes sense on another scale is refused."""

from __future__ import annotations

GREY_LEVEL = 1 / 255
_WIDEST = 4.0
"""The largest sigma: under it hardly anything of an image is left, and sigmas in grey levels are larger."""


def refuse_sigma(sigma: float, name: str = "sigma") -> None:
    """Raise ValueError where the standard deviation of noise is not on the scale of pixels.

    Below one grey level the noise is finer than the rounding of the 8-bit image that it is added to, and above 4 it is
    four times as wide as black to white: either is a slip of units (0.25/255 for 0.25, 25 for 25/255), and what is
    certified under it says nothing.

    Args:
        name: of the option, for the message.
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
