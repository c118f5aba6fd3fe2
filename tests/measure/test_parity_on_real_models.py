"""The tolerances on MLPerf Tiny keyword spotting: its published int8 twin passes, broken copies of it do not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewright.measure.parity import compare_outputs, judge

pytestmark = pytest.mark.toolchain("ai_edge_litert")

FLOAT_MODEL = "models/mlperf-tiny/kws_dscnn_fp32.tflite"
INT8_MODEL = "models/mlperf-tiny/kws_dscnn_int8.tflite"
N_SAMPLES = 100
FLOAT32 = 0  # TensorType.FLOAT32 of the LiteRT schema


def _features(assets: Path) -> np.ndarray:
    """MFCC of real clips, float32 [100, 49, 10, 1]; the scale is the int8 model's own input scale."""
    from ai_edge_litert.interpreter import Interpreter

    reader = Interpreter(model_path=str(assets / INT8_MODEL))
    scale, zero_point = reader.get_input_details()[0]["quantization"]
    files = sorted((assets / "data/speech-commands-mfcc-int8").rglob("*.bin"))
    chosen = files[:: len(files) // N_SAMPLES][:N_SAMPLES]
    raw = np.stack([np.frombuffer(path.read_bytes(), np.int8) for path in chosen])
    return ((raw.astype(np.float32) - zero_point) * scale).reshape(-1, 49, 10, 1)


def _outputs(model: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for x in inputs:
        if first["dtype"] == np.int8:
            scale, zero_point = first["quantization"]
            x = np.clip(np.round(x / scale) + zero_point, -128, 127)
        interpreter.set_tensor(first["index"], x[None].astype(first["dtype"]))
        interpreter.invoke()
        y = interpreter.get_tensor(last["index"])[0].astype(np.float32)
        if last["dtype"] == np.int8:
            scale, zero_point = last["quantization"]
            y = (y - zero_point) * scale
        rows.append(y)
    return {"scores": np.stack(rows)}


def _broken_copies(model: bytes) -> Iterator[tuple[str, bytes]]:
    """Copies with the weights of one layer zeroed, permuted, or with their first axis turned round."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def weights(unpacked: object) -> list[int]:
        graph = unpacked.subgraphs[0]  # type: ignore[attr-defined]
        second = [op.inputs[1] for op in graph.operators if op.inputs is not None and len(op.inputs) > 2]
        return [i for i in second if graph.tensors[i].type == FLOAT32]

    layers = weights(schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)))
    for place, index in (("first", layers[0]), ("middle", layers[len(layers) // 2]), ("last", layers[-1])):
        for fault in ("zeroed", "permuted", "swapped"):
            unpacked = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
            tensor = unpacked.subgraphs[0].tensors[index]
            buffer = unpacked.buffers[tensor.buffer]
            values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
            if fault == "zeroed":
                values = np.zeros_like(values)
            elif fault == "permuted":
                values = np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)
            else:
                values = values[..., ::-1] if values.shape[0] == 1 else values[::-1]
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            builder = flatbuffers.Builder(len(model))
            builder.Finish(unpacked.Pack(builder), b"TFL3")
            yield f"{fault} {place}", bytes(builder.Output())


def test_the_published_int8_twin_follows_its_source(assets: Path) -> None:
    inputs = _features(assets)
    reference = _outputs((assets / FLOAT_MODEL).read_bytes(), inputs)
    parity = compare_outputs(reference, _outputs((assets / INT8_MODEL).read_bytes(), inputs))
    assert judge(parity, "w8a8") == (True, "follows the source within the tolerance of w8a8")
    assert not judge(parity, "fp32")[0]


def test_broken_layers_are_told_at_every_precision(assets: Path) -> None:
    inputs = _features(assets)
    model = (assets / FLOAT_MODEL).read_bytes()
    reference = _outputs(model, inputs)
    for name, broken in _broken_copies(model):
        parity = compare_outputs(reference, _outputs(broken, inputs))
        for precision in ("fp32", "fp16", "w8", "w8a8"):
            assert not judge(parity, precision)[0], name


def test_wrong_preprocessing_is_told(assets: Path) -> None:
    inputs = _features(assets)
    model = (assets / FLOAT_MODEL).read_bytes()
    reference = _outputs(model, inputs)
    wrong = {
        "scale": inputs / 255.0,
        "mean": inputs + 0.5 * inputs.std(),
        "layout": np.ascontiguousarray(inputs.transpose(0, 2, 1, 3)).reshape(inputs.shape),
    }
    for name, fed in wrong.items():
        assert not judge(compare_outputs(reference, _outputs(model, fed)), "w8a8")[0], name
