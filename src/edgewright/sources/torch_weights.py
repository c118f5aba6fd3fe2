"""Weights for a PyTorch factory: read without running code, fitted with every mismatch named."""

from __future__ import annotations

import difflib
import pickletools
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import (
    EdgewrightError,
    FormatMismatchError,
    UnavailableError,
    UsageError,
    first_line,
)

if TYPE_CHECKING:
    import torch

_LISTED = 5
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_MAX_PICKLE_BYTES = 256 << 20


def read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return name -> tensor of the file at `path`, and notes on what was unwrapped.

    Raises:
        UsageError: the file is code, or holds no state dict.
        FormatMismatchError: the file is damaged.
    """
    import torch

    notes: list[str] = []
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: object = load_file(path)
        except (SafetensorError, OSError, ValueError) as err:
            raise FormatMismatchError(f"{path} is not a whole safetensors file: {first_line(err)}.") from err
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as err:
            raise _unreadable(path, err) from err
    if isinstance(content, dict) and not _is_state_dict(content):
        for key in _WRAPPERS:
            if isinstance(content.get(key), dict) and _is_state_dict(content[key]):
                content = content[key]
                notes.append(f"weights taken from the entry {key!r} of {path.name}")
                break
    if not isinstance(content, dict) or not _is_state_dict(content):
        got = (
            f"a dict with {sorted(map(str, content))[:_LISTED]}"
            if isinstance(content, dict)
            else type(content)
        )
        raise UsageError(f"{path} holds {got}, but a state dict (name -> tensor) is expected.")
    state = {str(name): tensor for name, tensor in content.items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        notes.append('prefix "module." removed from the weight names')
    return state, tuple(notes)


def load_weights(module: torch.nn.Module, path: Path) -> tuple[str, ...]:
    """Load the weights at `path` into `module`, strictly; return notes.

    Raises:
        UsageError: a weight is missing, unexpected or of another shape; the first few are named.
    """
    import torch

    state, notes = read_state_dict(path)
    own = module.state_dict()
    # BatchNorm's counter is absent from files older than PyTorch 0.4.1 and has no part in inference.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshaped = [name for name in state if name in own and state[name].shape != own[name].shape]
    problems = []
    if missing:
        problems.append(f"missing {_listed(missing, list(unexpected))}")
    if unexpected:
        problems.append(f"unexpected {_listed(unexpected, [] if missing else list(own))}")
    if misshaped:
        shapes = [f"{n!r} is {list(state[n].shape)}, not {list(own[n].shape)}" for n in misshaped[:_LISTED]]
        problems.append(f"{len(misshaped)} of another shape: {'; '.join(shapes)}")
    if problems:
        raise UsageError(
            f"the weights in {path} do not fit {type(module).__name__}: {'. '.join(problems)}. "
            "Give the factory that these weights were trained with."
        )
    bad = [n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise UsageError(
            f"the weights in {path} have NaN or infinite values in {bad[:_LISTED]}. Train again."
        )
    module.load_state_dict(state, strict=False)
    return notes


def refuse_pickle(path: Path) -> EdgewrightError:
    """Return the error for a .pt/.pth/.th that was given as a model, with the reason; nothing is executed."""
    try:
        read_state_dict(path)
    except EdgewrightError as err:
        return err
    return UsageError(
        f"{path} holds only weights (a state dict). Give the model as package.module:factory with "
        f"--weights {path.name} and --input-shape."
    )


def _unreadable(path: Path, err: Exception) -> EdgewrightError:
    names = pickle_globals(path)
    if names is None:
        return FormatMismatchError(
            f"{path} cannot be read as PyTorch weights: {first_line(err)}. It may be truncated; save it again."
        )
    if any(name.startswith("__torch__") for name in names):
        return UnavailableError(
            f"{path} is a TorchScript archive, which is not read by this version. "
            "Export the module with torch.export.save, or give package.module:factory and --weights."
        )
    strange = [name for name in names if not name.startswith(("torch.", "collections.", "torch._utils"))]
    found = f" It names {', '.join(strange[:_LISTED])}." if strange else f" {first_line(err)}."
    return UsageError(
        f"{path} is a pickle that is not a plain state dict; reading it would run code, so it is refused.{found} "
        "Save the weights alone: torch.save(model.state_dict(), ...), and give package.module:factory with --weights."
    )


def pickle_globals(path: Path) -> list[str] | None:
    """Return "module.name" of every global that the pickle in `path` would import, or None where it is no pickle.

    The opcodes are only listed (pickletools), never executed.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickles = [i for i in archive.infolist() if i.filename.endswith("data.pkl")]
                if not pickles or pickles[0].file_size > _MAX_PICKLE_BYTES:
                    return None
                content = archive.read(pickles[0])
        else:
            with path.open("rb") as stream:
                content = stream.read(_MAX_PICKLE_BYTES)
        return _globals_of(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return None


def _globals_of(content: bytes) -> list[str]:
    found: list[str] = []
    texts: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            found.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            found.append(f"{texts[-2]}.{texts[-1]}")
        elif "UNICODE" in opcode.name and isinstance(argument, str):
            texts.append(argument)
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument in memo:
            texts.append(memo[argument])
    return list(dict.fromkeys(found))


def _is_state_dict(content: dict[object, object]) -> bool:
    import torch

    return bool(content) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    )


def _listed(names: list[str], candidates: list[str]) -> str:
    parts = []
    for name in names[:_LISTED]:
        nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
        parts.append(f"{name!r}" + (f" (the file has {nearest[0]!r})" if nearest else ""))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)}: {', '.join(parts)}{more}"
