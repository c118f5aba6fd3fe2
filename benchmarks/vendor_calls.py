"""The vendors' own calls for the demo's 3 runtimes x 4 precisions: bare scripts without Edgewright.

`python vendor_calls.py RUNTIME FOLDER SAMPLE` is what somebody would write by hand for one runtime: import, convert
(float, fp16, int8 weights, int8), run all evaluation images, time. The overhead of the product is measured
against the three of them, one after another. `litert` comes first: it exports the module, quantizes it with PT2E
and writes both programs to FOLDER, which the others read, so that nothing is done twice here either.

Nothing here checks anything, compares with the source, or writes a report: it is the least that can be done.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

SAMPLES = 512  # for calibration, as in the product
WARM_UP_S = 0.05
TIMED_S = 0.36  # 30 rounds of 12 ms, as in the product

Run = Callable[[np.ndarray], object]


def main() -> None:
    """Do the part of one runtime."""
    part, folder, sample = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    images = np.load(sample / "digits_eval.npz")["inputs"]
    parts = {"litert": litert_part, "onnxruntime": onnxruntime_part, "openvino": openvino_part}
    for name, run in parts[part](folder, sample).items():
        use(f"{part} {name}", run, images)


def use(name: str, run: Run, images: np.ndarray) -> None:
    """Run all `images` one by one, then time as many calls as the product does."""
    for index in range(len(images)):
        run(images[index : index + 1])
    if name.endswith("source"):
        return
    times = []
    for budget_s in (WARM_UP_S, TIMED_S):
        times.clear()
        end = time.perf_counter() + budget_s
        while time.perf_counter() < end:
            image = images[len(times) % 16][None]
            start = time.perf_counter_ns()
            run(image)
            times.append(time.perf_counter_ns() - start)
    print(f"{name}: p50 {np.median(times) / 1e3:.1f} us of {len(times)}")


def litert_part(folder: Path, sample: Path) -> dict[str, Run]:
    """Export and quantize the module, convert with litert-torch, run in torch and in the LiteRT interpreter."""
    import runpy

    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig
    from safetensors.torch import load_file
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    source = runpy.run_path(str(sample / "digits.py"))["create"]()
    source.load_state_dict(load_file(sample / "digits.safetensors"))
    source.eval()
    example, pair = (torch.zeros(1, 1, 8, 8),), (torch.zeros(2, 1, 8, 8),)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    exported = torch.export.export(source, pair, dynamic_shapes=shapes)
    torch.export.save(exported, folder / "float.pt2")
    scheme = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported.module(), scheme)
    samples = torch.from_numpy(np.load(sample / "digits_train.npz")["inputs"][:SAMPLES])
    with torch.no_grad():
        for batch in samples.split(32):
            prepared(batch)
    converted = convert_pt2e(prepared, fold_quantize=False)
    quantized = torch.export.export(converted, pair, dynamic_shapes=shapes)
    torch.export.save(quantized, folder / "quantized.pt2")

    files = {name: folder / f"{name}.tflite" for name in ("fp32", "fp16", "w8", "w8a8")}
    litert_torch.convert(source, example).export(str(files["fp32"]))
    for name, steps in (("fp16", recipe.weight_only_wi8_afp32()), ("w8", recipe.weight_only_wi8_afp32())):
        if name == "fp16":
            for step in steps:
                step["algorithm_key"] = "float_casting"
                step["op_config"]["weight_tensor_config"].update(num_bits=16, dtype="FLOAT")
        tool = quantizer.Quantizer(str(files["fp32"]), steps)
        tool.quantize().export_model(str(files[name]), overwrite=True)
    module = quantized.module()
    module.training = False
    made = litert_torch.convert(module, example, quant_config=QuantConfig(pt2e_quantizer=scheme))
    made.export(str(files["w8a8"]))

    def run_source(image: np.ndarray) -> object:
        with torch.no_grad():
            return source(torch.from_numpy(image)).numpy()

    def runner(path: Path) -> Run:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        put, get = into["index"], out["index"]
        scale, zero_point = into["quantization"]

        def run(image: np.ndarray) -> object:
            if into["dtype"] == np.int8:  # litert-torch gives a quantized model int8 inputs
                image = np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)
            interpreter.set_tensor(put, image)
            interpreter.invoke()
            return interpreter.get_tensor(get)

        return run

    return {"source": run_source, **{name: runner(path) for name, path in files.items()}}


def onnxruntime_part(folder: Path, sample: Path) -> dict[str, Run]:
    """Export with torch.onnx, make fp16 and int8 weights with ONNX Runtime's tools, run in ONNX Runtime."""
    import onnx
    import onnxruntime
    import torch
    import torch.ao.quantization.fx._decomposed
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.float16 import convert_float_to_float16

    files = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "w8", "w8a8")}
    for name, source in (("fp32", "float.pt2"), ("w8a8", "quantized.pt2")):
        program = torch.onnx.export(torch.export.load(folder / source), dynamo=True, verbose=False)
        program.save(str(files[name]), external_data=False)
    onnx.save(convert_float_to_float16(onnx.load(files["fp32"]), keep_io_types=True), files["fp16"])
    bare = onnx.load(files["fp32"])
    del bare.graph.value_info[:]  # the exporter's own shapes are not those that the tool infers
    quantize_dynamic(bare, files["w8"], weight_type=QuantType.QUInt8)

    def runner(path: Path) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda image: session.run(None, {name: image})

    return {name: runner(path) for name, path in files.items()}


def openvino_part(folder: Path, sample: Path) -> dict[str, Run]:
    """Convert with OpenVINO, compress weights with NNCF, run in OpenVINO."""
    import torch
    import torch.ao.quantization.fx._decomposed

    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import openvino

    files = {name: folder / f"{name}.xml" for name in ("fp32", "fp16", "w8", "w8a8")}
    model = openvino.convert_model(torch.export.load(folder / "float.pt2"))
    openvino.save_model(model, files["fp32"], compress_to_fp16=False)
    openvino.save_model(model, files["fp16"], compress_to_fp16=True)
    weights = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(weights, files["w8"], compress_to_fp16=False)
    quantized = openvino.convert_model(torch.export.load(folder / "quantized.pt2"))
    openvino.save_model(quantized, files["w8a8"], compress_to_fp16=False)
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}

    def runner(path: Path) -> Run:
        request = core.compile_model(path, "CPU", settings).create_infer_request()
        return lambda image: request.infer([image], share_inputs=True)[0]

    return {name: runner(path) for name, path in files.items()}


if __name__ == "__main__":
    main()
