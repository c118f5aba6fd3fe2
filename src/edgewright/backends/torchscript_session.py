"""A TorchScript archive in torch: the full interpreter, or the lite one of phones."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, FormatMismatchError, IntegrityError, first_line
from edgewright.core.tensors import Arrays, check_arrays

if TYPE_CHECKING:
    import torch

    Script = Callable[..., object]


class TorchScriptSession(SignedSession):
    """A loaded archive, in float32 on the CPU.

    Args:
        is_lite: run the bytecode of a `.ptl` in the lite interpreter, as a phone does.
    """

    def __init__(self, artifact: Artifact, *, threads: int, is_lite: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        self._artifact = artifact
        self._call: Script | None = (
            load_lite(artifact.path) if is_lite else load_script(artifact.path).forward
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: torch failed, or gave other outputs than recorded.
        """
        import torch

        assert self._call is not None, "the session is closed"
        name = self._artifact.path.name
        check_arrays(inputs, self.inputs, what=f"input of {name}")
        given = [torch.from_numpy(np.array(inputs[spec.name], order="C")) for spec in self.inputs]
        results = run_script(self._call, given, name)
        if len(results) != len(self.outputs):
            raise ConversionError(
                f"{name} gave {len(results)} outputs; {len(self.outputs)} are expected. Build it again."
            )
        return {
            spec.name: value.contiguous().numpy().copy()
            for spec, value in zip(self.outputs, results, strict=True)
        }

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the interpreter runs operators one by one, without a profile of layers."""
        return ()

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._call = None
        gc.collect()


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Return the module in the archive at `path`, in evaluation mode, on the CPU.

    Only TorchScript code runs while it is read; `sources.torchscript` has checked what that code may call.

    Raises:
        FormatMismatchError: torch cannot read it.
        IntegrityError: a tensor reaches outside its storage.
    """
    import torch

    try:
        with vendor.quiet():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as err:
        raise FormatMismatchError(
            f"{path.name} cannot be read as TorchScript: {_told(err)}. It may be truncated, or need operators or "
            "classes of a library that is not here; save it again with torch.jit.save."
        ) from err
    _check_extents(module, path.name)
    module.eval()
    return module


def _check_extents(module: torch.jit.ScriptModule, name: str) -> None:
    """The unpickler takes sizes and strides as they are written, whatever the storage holds."""
    for kind in (module.named_parameters(), module.named_buffers()):
        for title, tensor in kind:
            if not tensor.numel() or tensor.layout is not _strided():
                continue
            reach = tensor.storage_offset() + 1
            reach += sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
            if reach * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise IntegrityError(
                    f"{name}: the tensor {title[:80]!r} of shape {list(tensor.shape)} reaches outside its storage. "
                    "It is not read."
                )


def _strided() -> torch.layout:
    import torch

    return torch.strided


def load_lite(path: Path) -> Script:
    """Return the forward of the `.ptl` at `path` in the lite interpreter.

    Raises:
        ConversionError: it cannot be loaded.
    """
    from torch.jit.mobile import _load_for_lite_interpreter

    try:
        with vendor.quiet():
            module = _load_for_lite_interpreter(str(path))  # type: ignore[no-untyped-call]
    except Exception as err:
        raise ConversionError(f"the lite interpreter cannot load {path.name}: {_told(err)}.") from err
    call: Script = module.forward
    return call


def run_script(call: Script, inputs: Sequence[torch.Tensor], name: str) -> list[torch.Tensor]:
    """Return the output tensors of one call, in the order of torch's pytree.

    Raises:
        ConversionError: it fails, or returns something else than tensors.
    """
    import torch
    from torch.utils import _pytree

    try:
        with vendor.quiet(), torch.no_grad():
            results = _pytree.tree_leaves(call(*inputs))
    except Exception as err:
        raise ConversionError(f"torch failed to run {name}: {_told(err)}.") from err
    kinds = sorted({type(value).__name__ for value in results if not isinstance(value, torch.Tensor)})
    if kinds:
        raise ConversionError(
            f"{name} returns {', '.join(kinds)}; only tensors are expected. Wrap the module."
        )
    return [value.detach() for value in results]


def _told(err: Exception) -> str:
    """Return the line that names the cause: TorchScript prints its own traceback first."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("RuntimeError:") or "Unknown" in line]
    return (causes[-1] if causes else first_line(err))[:400].rstrip(".")
