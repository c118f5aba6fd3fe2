"""The error classes, chosen by who must act; each carries the exit code of the command line.

A message says what failed, what was got, what was expected and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_QUOTED_CHARACTERS = 400


class EdgewrightError(Exception):
    """Base of every error that is not a bug of Edgewright itself."""

    exit_code = 1


class UsageError(EdgewrightError):
    """The caller must change the request."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file does not say what a recipe must say."""


class UnknownNameError(UsageError):
    """A name matches nothing; the message suggests the nearest one."""

    @classmethod
    def of(cls, kind: str, got: str, known: Iterable[str]) -> UnknownNameError:
        """Return the error for `got`, listing `known` names of `kind` and the nearest of them."""
        names = sorted(known)
        nearest = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        return cls(f"unknown {kind} {got!r:.200}; known: {', '.join(names) or 'none'}.{hint}")


class FormatMismatchError(UsageError):
    """A file or a program is not in a format that the step can read."""


class DataError(UsageError):
    """The data set does not fit the model or the metric."""


class TrainingError(UsageError):
    """A training function failed, gave NaN, or cannot train this model; the last good checkpoint stays."""


class UnavailableError(EdgewrightError):
    """A toolchain or device is not here; the message says how to get it."""

    exit_code = 3


class ConversionError(EdgewrightError):
    """A converter refused the model or wrote a model that is not the source."""

    exit_code = 4


class BudgetError(EdgewrightError):
    """A result runs, but breaks a budget or a tolerance."""

    exit_code = 5


class IntegrityError(EdgewrightError):
    """A file is not the one that its digest or its structure promises."""

    exit_code = 6


class WorkerError(EdgewrightError):
    """A worker process crashed, timed out, ran out of memory or broke the protocol."""

    exit_code = 7


_BY_NAME = {
    cls.__name__: cls
    for cls in (
        UsageError,
        RecipeError,
        UnknownNameError,
        FormatMismatchError,
        DataError,
        TrainingError,
        UnavailableError,
        ConversionError,
        BudgetError,
        IntegrityError,
        WorkerError,
    )
}


def first_line(err: BaseException) -> str:
    """Return the first line of an error's text that says something, or the name of its class."""
    try:
        lines = [line.strip() for line in str(err).splitlines()]
    except Exception:  # a vendor's exception whose text cannot be made
        lines = []
    return next((line for line in lines if line), type(err).__name__)[:_MAX_QUOTED_CHARACTERS].rstrip(".")


def error_from_name(name: str, message: str) -> EdgewrightError:
    """Return the error class called `name` with `message`, as a worker reported it.

    An unknown name is a breach of the worker protocol and becomes a WorkerError.
    """
    cls = _BY_NAME.get(name)
    if cls is None:
        return WorkerError(f"a worker reported {name}: {message}")
    return cls(message)
