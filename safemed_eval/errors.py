"""Every error that the package raises on purpose.

    SafemedError
    ├── UserError            the person at the keyboard can mend it: one line on stderr, exit code 2
    │   ├── SpecError        an option or a spec string is wrong
    │   ├── DataError        a data set, a question or an image is wrong
    │   ├── CheckpointError  a model cannot be loaded, or cannot be attacked as it stands
    │   └── RunError         a run folder is locked, torn, or belongs to another spec
    └── ModelOutputError     the model raised, or returned NaN, infinite or misshapen output, for some rows

    KeyboardInterrupt
    └── Stopped              Ctrl-C, with what is safe in its message

A message says what is wrong, where, what was found, and what to do. Everything else keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SafemedError(Exception):
    """Base of all errors raised on purpose."""


class UserError(SafemedError):
    """Something that the user can mend. The CLI prints it as one line and exits with code 2."""


class SpecError(UserError):
    """An option or a spec string is wrong."""


class DataError(UserError):
    """A data set, a question or an image is wrong."""


class CheckpointError(UserError):
    """A model cannot be loaded, or cannot be attacked as it stands."""


class RunError(UserError):
    """A run folder is in use, damaged, or belongs to another spec."""


class ModelOutputError(SafemedError):
    """The model broke the contract of the waist: it raised, or gave non-finite or misshapen output."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended a run; the message says what is safe and how to go on."""


def shortened(text: str, most: int = 300) -> str:
    """A text with its middle left out where it is longer than `most`: what is told must stay readable."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} [... {len(text):,} characters ...] {text[-most // 4 :]}"


def canonical(name: str, known: Iterable[str]) -> str | None:
    """The known spelling of a name, without regard to case; None where no known name fits, or several do."""
    known = set(known)
    if name in known:
        return name
    same = [one for one in known if one.casefold() == name.casefold()]
    return same[0] if len(same) == 1 else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an "unknown name" message: a guess where one is close, else the whole list."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
