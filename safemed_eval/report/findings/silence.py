"""Whether most of what a model said is no answer: most likely it is asked otherwise than it was trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from safemed_eval.report.load import Json, LoadedRun

_SHOWN = 3
_LONGEST = 80


def silence(run: LoadedRun) -> Json | None:
    """What is known of a run most of whose texts, on clean images, or votes are no answer; None of any other.

    Returns:
        `none` of `n` are no answer; `what` these are, "texts", or "votes" of noisy copies; the first few of the
        `texts`, shortened, none where they are not kept; and whether `options` of the command decide how it is asked.
    """
    if run.sequential:
        return None  # it counts the gold answer alone
    rows = run.frame if run.kind == "certify" else run.under("clean")
    heard = rows if rows.empty else rows[rows["error"].isna()]
    none, n, what = _of_votes(heard) if "votes" in heard else _of_texts(heard)
    if 2 * none <= n:
        return None
    texts = [] if what == "votes" else dict.fromkeys(map(_short, _texts(heard[heard["prediction"].isna()])))
    asked = run.spec["asking"] is not None
    return {"none": none, "n": n, "what": what, "texts": list(texts)[:_SHOWN], "options": asked}


def silence_sentences(found: Json | None) -> Iterator[str]:
    """What `silence` has found, and what to do about it; nothing where it has found nothing."""
    if found is None:
        return
    quoted = [f'"{text}"' for text in found["texts"]]
    such = f", such as {'; '.join(quoted)}" if quoted else ""
    todo = "see how your model is asked, and which answers can be read"
    if found["options"]:
        todo = (
            "ask it in the words that it was trained on, with --template, let it finish, with --max-new-tokens, or use "
            "--readout choice or think-choice, which always have an answer"
        )
    count = f"{found['none']} of {found['n']} {found['what']}"
    yield f"Most of what the model said is no answer: {count}{such}. {todo[0].upper()}{todo[1:]}."


def _of_votes(heard: pd.DataFrame) -> tuple[int, int, str]:
    """Both the votes that select a class and those that bound it."""
    columns = [heard[name] for name in ("votes0", "votes") if name in heard]
    counts = [votes for column in columns for votes in column if isinstance(votes, list | tuple)]
    return sum(votes[-1] for votes in counts), sum(map(sum, counts)), "votes"


def _of_texts(heard: pd.DataFrame) -> tuple[int, int, str]:
    """Of the records that have a text, or had one before pseudonyms took its place."""
    columns = [heard[name].notna() for name in ("text", "told") if name in heard]
    if not columns:
        return 0, 0, "texts"
    written = pd.concat(columns, axis=1).any(axis=1)
    return int(heard["prediction"][written].isna().sum()), int(written.sum()), "texts"


def _texts(silent: pd.DataFrame) -> Iterable[str]:
    return (text for text in silent["text"] if isinstance(text, str)) if "text" in silent else ()


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."
