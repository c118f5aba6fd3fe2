"""The bridges by name, and the shortest route from a source's format to one that a runtime reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module

from edgewright.core.contracts import Bridge
from edgewright.core.errors import UnavailableError, UnknownNameError

# A runtime with the longest of these routes has four steps between it and the source (Keras to ExecuTorch), and each
# step is compared with the one before it.
_BRIDGES = {
    "onnx-to-torch": "edgewright.bridges.onnx_torch:OnnxToTorch",
    "tflite-to-onnx": "edgewright.bridges.tflite_onnx:TfliteToOnnx",
    "torch-to-onnx": "edgewright.bridges.torch_onnx:TorchToOnnx",
    "torchscript-to-torch": "edgewright.bridges.torchscript:TorchScriptToTorch",
    "torch-to-torchscript": "edgewright.bridges.torchscript:TorchToTorchScript",
    "keras-to-savedmodel": "edgewright.bridges.tensorflow:KerasToSavedModel",
    "savedmodel-to-tflite": "edgewright.bridges.tensorflow:SavedModelToTflite",
    "graphdef-to-tflite": "edgewright.bridges.tensorflow:GraphDefToTflite",
}


@cache
def get(name: str) -> Bridge:
    """Return the bridge called `name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in _BRIDGES:
        raise UnknownNameError.of("bridge", name, sorted(_BRIDGES))
    module, _, made = _BRIDGES[name].partition(":")
    bridge = getattr(import_module(module), made)()
    assert isinstance(bridge, Bridge)
    return bridge


def route(source: str, consumes: Sequence[str], *, runtime: str) -> tuple[Bridge, ...]:
    """Return the fewest bridges from format `source` to one of `consumes`; none where it is one of them.

    Among routes of one length the first of `consumes` wins. A bridge whose packages are missing is passed over
    while there is another route.

    Raises:
        UnavailableError: there is no route, or a toolchain on it is not here; the message says which.
    """
    if source in consumes:
        return ()
    bridges = [get(name) for name in _BRIDGES]
    found = _shortest(source, consumes, [bridge for bridge in bridges if bridge.probe().is_available])
    if found is not None:
        return found
    needed = _shortest(source, consumes, bridges)
    if needed is None:
        raise UnavailableError(
            f"{runtime} reads {', '.join(consumes)}, and nothing here makes one of these from {source}."
        )
    missing = next(bridge.probe() for bridge in needed if not bridge.probe().is_available)
    steps = " -> ".join((source, *(bridge.writes for bridge in needed)))
    raise UnavailableError(f"{runtime} is reached by {steps}, and that needs more: {missing.reason}")


def _shortest(source: str, consumes: Sequence[str], bridges: Iterable[Bridge]) -> tuple[Bridge, ...] | None:
    steps = list(bridges)
    reached: dict[str, tuple[Bridge, ...]] = {source: ()}
    frontier = [source]
    while frontier:
        for form in consumes:
            if form in reached:
                return reached[form]
        following: list[str] = []
        for form in frontier:
            for bridge in steps:
                if form in bridge.reads and bridge.writes not in reached:
                    reached[bridge.writes] = (*reached[form], bridge)
                    following.append(bridge.writes)
        frontier = following
    return None
