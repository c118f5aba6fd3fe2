"""What a predicting worker does: open the models once, then raw inputs in, arrays of results out.

These functions run in a worker process. The opened models stay there between the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Session
from edgewright.core.tensors import Array, Arrays
from edgewright.processing.planning import plan
from edgewright.processing.processor import Processor, Raw
from edgewright.processing.signature import Signature
from edgewright.processing.specification import read_specification
from edgewright.processing.streaming import stacked, stream, stream_input
from edgewright.sources.tflite import end_quantization


@dataclass(kw_only=True, eq=False)
class _Opened:
    """The models of this process.

    Attributes:
        shapes: of the last run, by model and tensor.
        outputs: of all runs since a recording began, by model and tensor.
    """

    processor: Processor
    sessions: Mapping[str, Session]
    shapes: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    outputs: dict[str, dict[str, list[Array]]] = field(default_factory=dict)
    is_recording: bool = False

    def execute(self, model: str, inputs: Arrays) -> Arrays:
        outputs = self.sessions[model].run(inputs)
        seen = [*inputs.items(), *outputs.items()]
        self.shapes[model] = {name: list(np.shape(array)) for name, array in seen}
        for name, array in outputs.items() if self.is_recording else ():
            self.outputs.setdefault(model, {}).setdefault(name, []).append(np.array(array))
        return outputs

    def save_outputs(self, folder: Path) -> dict[str, dict[str, str]]:
        """Write what was recorded, [runs, ...]; return the files by model and tensor."""
        folder.mkdir(exist_ok=True)
        return {
            model: {
                name: _save(np.stack(arrays), folder / f"{m}_{n}.npy")
                for n, (name, arrays) in enumerate(made.items())
            }
            for m, (model, made) in enumerate(self.outputs.items())
        }


_opened: dict[str, _Opened] = {}


def predict(arguments: dict[str, object]) -> dict[str, object]:
    """Return the results of raw inputs; the models are opened with the first call, and again after a crash.

    Arguments: specification (path of its file), artifacts (name of the model -> record), raw (name -> .npy file, or
        {"text": ...}), is_joined (false: the results of a stream's runs are stacked as they are), is_recording (keep
        what the models give), out (folder).
    Result: results (name -> .npy file), shapes (name of the model -> name of the tensor -> shape, as they were last),
        outputs (name of the model -> name of the tensor -> .npy file, [runs, ...], of a recording).
    """
    opened = _open(str(arguments["specification"]), _record(arguments["artifacts"]))
    raw: dict[str, Raw] = {}
    for name, given in _record(arguments["raw"]).items():
        raw[name] = str(given["text"]) if isinstance(given, dict) else np.load(str(given), allow_pickle=False)
    opened.processor.reset()
    opened.outputs.clear()
    opened.is_recording = arguments.get("is_recording") is True
    streamed = stream_input(opened.processor.plan)
    if streamed is not None and streamed.name in raw:
        sound = np.asarray(raw[streamed.name])
        joined = stream if arguments.get("is_joined", True) else stacked
        results = joined(opened.processor.plan, sound, opened.execute, start=opened.processor)
    else:
        results = opened.processor.run(raw, opened.execute)
    out = Path(str(arguments["out"]))
    out.mkdir(parents=True, exist_ok=True)
    return {
        "results": {name: _save(array, out / f"{name}.npy") for name, array in results.items()},
        "shapes": opened.shapes,
        "outputs": opened.save_outputs(out / "outputs"),
    }


def quantization(arguments: dict[str, object]) -> dict[str, object]:
    """Return the parameters of the integer inputs and outputs of a `.tflite`.

    Arguments: path.
    Result: ends (name -> [scale, zero point]).
    """
    return {
        "ends": {name: list(pair) for name, pair in end_quantization(Path(str(arguments["path"]))).items()}
    }


def _open(specification: str, artifacts: Mapping[str, object]) -> _Opened:
    if specification not in _opened:
        records = {name: Artifact.from_json(_record(record)) for name, record in artifacts.items()}
        signatures = {
            name: Signature(inputs=artifact.inputs, outputs=artifact.outputs)
            for name, artifact in records.items()
        }
        # The specification first: a model is only opened for one that fits it.
        processor = Processor(plan(read_specification(Path(specification)), signatures))
        sessions = {}
        for name, artifact in records.items():
            artifact.verify_digest()
            sessions[name] = registry.get(artifact.target.runtime).open(artifact, artifact.target)
        _opened[specification] = _Opened(processor=processor, sessions=sessions)
    return _opened[specification]


def _save(array: Array, path: Path) -> str:
    np.save(path, array, allow_pickle=False)
    return str(path)


def _record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
