"""Every error that the package raises on purpose.

    SafemedError
    ├── UserError            the user can fix it: one line on stderr, exit code 2
    │   ├── SpecError        an option or a spec string is wrong
    │   ├── DataError        a data set, a question or an image is wrong
    │   ├── CheckpointError  a model cannot be loaded, or cannot be attacked as it is
    │   └── RunError         a run folder is locked, torn, or belongs to another spec
    └── ModelOutputError     the model raised, or returned NaN, infinite or misshapen output, for some rows

    KeyboardInterrupt
    └── Stopped              Ctrl-C; the message says which results are saved

A message says what is wrong, where, what was given, and what to do. All other errors keep their traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SafemedError(Exception):
    """Base of all errors raised on purpose."""


class UserError(SafemedError):
    """An error that the user can fix. The CLI prints it as one line and exits with code 2."""


class SpecError(UserError):
    """An option or a spec string is wrong."""


class DataError(UserError):
    """A data set, a question or an image is wrong."""


class CheckpointError(UserError):
    """A model cannot be loaded, or cannot be attacked as it is."""


class RunError(UserError):
    """A run folder is in use, damaged, or belongs to another spec."""


class ModelOutputError(SafemedError):
    """The model raised, or returned NaN, infinite or misshapen output."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a run; the message says which results are saved and how to resume."""


def shortened(text: str, most: int = 300) -> str:
    """Shorten a text longer than `most` characters by leaving out its middle."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} [... {len(text):,} characters ...] {text[-most // 4 :]}"


def canonical(name: str, known: Iterable[str]) -> str | None:
    """Return the known spelling of a name, ignoring case; None unless exactly one known name matches."""
    known = set(known)
    if name in known:
        return name
    matches = [other for other in known if other.casefold() == name.casefold()]
    return matches[0] if len(matches) == 1 else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an "unknown name" message: the closest known name, or else the whole list."""
    known = sorted(known)
    shortened = [one for one in known if len(one) > 1 and name.startswith(one)]
    close = shortened[-1:] or get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
