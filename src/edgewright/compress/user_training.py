"""The user's own training loop: found by name, called, and its failures told with the line that failed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import math
import numbers
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import EdgewrightError, TrainingError

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Train

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_HOW = (
    "A training function is called as train(module, epochs), trains the module in place and returns nothing."
)


def load_train(spec: str, *, folder: Path | None = None) -> Train:
    """Return the training function that `spec`, package.module:function, names.

    Args:
        folder: searched for the package first, then and while it trains; None is the working folder.
    Raises:
        TrainingError: it is not there, cannot be imported, or cannot be called with (module, epochs).
    """
    if not _SPEC.fullmatch(spec):
        raise TrainingError(f"{spec!r} names no training function; package.module:train is expected.")
    module_name, _, name = spec.partition(":")
    home = str(folder or Path.cwd())
    with _on_path(home):
        try:
            found: object = getattr(importlib.import_module(module_name), name, None)
        except Exception as err:
            raise TrainingError(
                f"cannot import {module_name!r} for {spec!r}: {_what_and_where(err)}"
            ) from err
    if not callable(found):
        known = [title for title in dir(sys.modules[module_name]) if not title.startswith("_")]
        raise TrainingError(f"{module_name!r} has no function {name!r}; it has {', '.join(known[:12])}.")
    function: Callable[..., object] = found
    _require_arity(function, spec)
    if hasattr(found, "train_epochs"):  # it can go on after a kill by itself
        resumable: Train = found
        return resumable

    @functools.wraps(function)
    def train(module: torch.nn.Module, epochs: int) -> None:
        with _on_path(home):
            call_train(function, module, epochs, name=spec)

    return train


def describe_train(train: Callable[..., object]) -> object:
    """Return, as JSON values, which training function `train` is."""
    describe = getattr(train, "describe", None)
    if hasattr(train, "train_epochs") and callable(describe):
        return describe()
    name = getattr(train, "__qualname__", type(train).__qualname__)
    return f"{getattr(train, '__module__', '')}:{name}"


def call_train(
    train: Callable[..., object], module: torch.nn.Module, epochs: int, *, name: str = "", salt: str = ""
) -> None:
    """Train `module` in place with `train`, with Python's, numpy's and torch's generators seeded from `salt`.

    It may return nothing, the module that it was given, or a finite number (a loss).

    Raises:
        TrainingError: it takes other arguments, fails (with the line), returns NaN or anything else, or leaves
            parameters of other names, shapes or types.
    """
    import numpy as np
    import torch

    name = name or str(describe_train(train))
    _require_arity(train, name)
    if salt:
        seed = seed_of(salt)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        torch.manual_seed(seed)
    before = _parameters(module)
    try:
        result = train(module, epochs)
    except EdgewrightError:
        raise
    except SystemExit as err:
        raise TrainingError(f"{name} ended the program (exit code {err.code}). {_HOW}") from err
    except Exception as err:
        raise TrainingError(f"{name} failed: {_what_and_where(err)}") from err
    _require_result(result, module, name)
    after = _parameters(module)
    for parameter in [*before, *after]:
        was, now = before.get(parameter, "not there"), after.get(parameter, "not there")
        if was != now:
            raise TrainingError(
                f"{name} changed parameter {parameter!r}: it was {was}, and is {now}. Change values alone."
            )


def _parameters(module: torch.nn.Module) -> dict[str, str]:
    """Return the name of each parameter with its type and shape."""
    return {
        name: f"{str(parameter.dtype).removeprefix('torch.')} {list(parameter.shape)}"
        for name, parameter in module.named_parameters()
    }


def seed_of(text: str) -> int:
    """Return a seed in 0..2**63-1 that is the same for the same `text` everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _require_arity(function: Callable[..., object], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-in, without one
        return
    try:
        signature.bind(None, 1)
    except TypeError as err:
        raise TrainingError(
            f"{name}{signature} cannot be called with (module, epochs): {err}. {_HOW}"
        ) from err


def _require_result(result: object, module: torch.nn.Module, name: str) -> None:
    import torch

    if result is None or result is module:
        return
    if isinstance(result, torch.Tensor) and result.numel() == 1:
        result = result.item()
    if isinstance(result, numbers.Real):
        if math.isfinite(result):
            return
        raise TrainingError(f"{name} returned {result}: the training diverged. Lower the learning rate.")
    raise TrainingError(f"{name} returned {type(result).__name__}. {_HOW}")


def _what_and_where(err: BaseException) -> str:
    """Return the message of `err` and the last line outside installed packages that led to it."""
    frames = traceback.extract_tb(err.__traceback__)
    own = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename
        and not frame.filename.startswith("<")
        and Path(__file__).parents[1] not in Path(frame.filename).parents
        and not frame.filename.startswith(sys.base_prefix)
    ]
    where = f" ({own[-1].filename}:{own[-1].lineno}: {own[-1].line})" if own else ""
    if isinstance(err, SyntaxError) and err.filename:
        where = f" ({err.filename}:{err.lineno})"
    return f"{type(err).__name__}: {' '.join(str(err).split())[:400]}{where}"


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
