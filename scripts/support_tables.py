"""Write the tables of supported operators that `edgewright explain` reads, from the installed toolchains themselves.

    python scripts/support_tables.py [RUNTIME ...]

Each table is made in a process of its own, either read from the toolchain's registry or probed: a model of one
operator is handed to its front end, which says whether it has a rule for that operator. Nothing is typed in by hand,
so run this again whenever a toolchain's version moves.
"""

from __future__ import annotations

import json
import keyword
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

TABLES = Path(__file__).resolve().parent.parent / "src" / "edgewright" / "explain" / "tables"
_NAMESPACES = ("aten", "quantized_decomposed", "torchao", "prims")


def onnxruntime() -> dict[str, object]:
    """ONNX: the kernels of the CPU provider, with their types; torch: the exporter's translations."""
    import onnx
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema, get_all_opkernel_def

    kernels: dict[str, list[object]] = defaultdict(list)
    for kernel in get_all_opkernel_def():
        if kernel.provider != "CPUExecutionProvider":
            continue
        since, until = kernel.version_range
        types = {
            name: sorted(text.removeprefix("tensor(").removesuffix(")") for text in texts)
            for name, texts in sorted(kernel.type_constraints.items())
        }
        name = f"{kernel.domain}.{kernel.op_name}" if kernel.domain else kernel.op_name
        kernels[name].append([since, min(until, 1 << 20), types])
    schemas: dict[str, list[object]] = defaultdict(list)
    for schema in get_all_operator_schema():
        name = f"{schema.domain}.{schema.name}" if schema.domain else schema.name
        schemas[name].append([schema.since_version, schema.max_input, sorted(schema.attributes)])
    functions = sorted(
        {
            f"{schema.domain}.{schema.name}" if schema.domain else schema.name
            for schema in onnx.defs.get_all_schemas_with_history()
            if schema.has_function or schema.has_context_dependent_function
        }
    )
    return {
        "versions": _versions("onnxruntime", "onnx", "torch", "onnxscript"),
        "formats": {
            "onnx": {
                "how": "kernel registry",
                "kernels": dict(sorted(kernels.items())),
                "functions": functions,
                "definitions": {name: sorted(entries) for name, entries in sorted(schemas.items())},
                "last_opset": _last_opset(),
            },
            "pt2": {"how": "registry of the exporter", "operators": _torchlib()},
        },
    }


def _last_opset() -> int:
    """Return the last opset that the runtime loads a model of."""
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4
    last = 0
    for opset in range(1, 41):
        tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
        graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "one", tensors[:1], tensors[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        try:
            InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:
            continue
        last = opset
    return last


def _torchlib() -> list[str]:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    registry = ONNXRegistry.from_torchlib()
    return sorted(str(target) for target in _torch_operators() if registry.is_registered(target))


def openvino() -> dict[str, object]:
    """Probed: one operator at a time is handed to OpenVINO's front ends."""
    from openvino.frontend import FrontEndManager

    manager = FrontEndManager()
    return {
        "versions": _versions("openvino", "onnx", "torch"),
        "formats": {
            "onnx": {"how": "probed", "operators": _probed_onnx(manager.load_by_framework("onnx"))},
            "pt2": {"how": "probed", "operators": _probed_torch(manager.load_by_framework("pytorch"))},
            "tflite": {"how": "probed", "operators": _probed_tflite("openvino")},
        },
    }


def _probed_onnx(front_end: object) -> dict[str, list[int]]:
    """Return operator -> opset versions for which there is a conversion rule."""
    import onnx
    from onnx import TensorProto, helper

    found: dict[str, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.onnx"
        for schema in onnx.defs.get_all_schemas_with_history():
            if schema.deprecated or schema.domain not in ("", "ai.onnx.ml"):
                continue
            # A rule may come with a later version than the schema: each schema is asked for under its last opset.
            inputs = [f"i{index}" for index in range(max(len(schema.inputs), 1))]
            outputs = [f"o{index}" for index in range(max(len(schema.outputs), 1))]
            node = helper.make_node(schema.name, inputs, outputs, domain=schema.domain)
            graph = helper.make_graph(
                [node],
                "one",
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4]) for name in inputs],
                [helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, None)],
            )
            opsets = [helper.make_opsetid(schema.domain, schema.since_version)]
            if schema.domain:
                opsets.append(helper.make_opsetid("", 21))
            path.write_bytes(
                helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
            )
            name = f"{schema.domain}.{schema.name}" if schema.domain else schema.name
            if _has_rule(front_end, str(path)):
                found[name].append(schema.since_version)
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _probed_torch(front_end: object) -> list[str]:
    """Return the operators of torch, as overloads, for which there is a conversion rule."""
    import torch
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    found = []
    for target in _torch_operators():
        graph = torch.fx.Graph()
        arguments: list[object] = []
        for argument in target._schema.arguments:
            if argument.has_default_value():
                break
            is_tensor = str(argument.type) == "Tensor"
            arguments.append(graph.placeholder(f"a{len(arguments)}") if is_tensor else 1)
        graph.output((graph.call_function(target, tuple(arguments)),))
        for node in graph.nodes:
            if node.op == "placeholder":
                node.meta["val"] = torch.zeros(1, 2, 4, 4)
        module = torch.fx.GraphModule(torch.nn.Module(), graph)
        if _has_rule(front_end, TorchFXPythonDecoder(module, dynamic_shapes=True)):
            found.append(str(target))
    return sorted(found)


def _has_rule(front_end: object, model: object) -> bool:
    """Return whether the front end knows the operator, whatever it says of these inputs."""
    try:
        front_end.convert(front_end.load(model))
    except Exception as err:
        return "No conversion rule found" not in str(err)
    return True


def _torch_operators() -> Iterator[object]:
    import torch
    import torch.ao.quantization.fx._decomposed

    for namespace in _NAMESPACES:
        space = getattr(torch.ops, namespace)
        entries = [
            entry for entry in torch._C._dispatch_get_all_op_names() if entry.startswith(f"{namespace}::")
        ]
        for name in sorted({entry.split("::")[1].split(".")[0] for entry in entries}):
            packet = getattr(space, name)
            for overload in packet.overloads():
                target = getattr(packet, overload)
                returns = target._schema.returns
                is_named = not keyword.iskeyword(overload)  # fx writes Python: random.from is none
                if is_named and not target._schema.is_mutable and returns and not name.endswith("_backward"):
                    yield target


def _probed_tflite(runtime: str) -> dict[str, list[int]]:
    """Return builtin operator -> its versions that the runtime has a kernel or a rule for.

    Each is asked in a process of its own: an operator without its options crashes some readers.
    """
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for code, name in sorted(names.items()):
            if name in ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"):
                continue
            for version in range(1, 13):
                (Path(folder) / f"{name}.{version}.tflite").write_bytes(_one_operator(schema, code, version))
        done: set[str] = set()
        while True:
            asked = subprocess.run(
                [sys.executable, __file__, f"--probe-{runtime}", folder],
                capture_output=True,
                text=True,
                check=False,
            )
            lines = [line.split() for line in asked.stdout.splitlines() if line.startswith("probe ")]
            for _, stem, answer in lines:
                name, _, version = stem.partition(".")
                if answer == "ok":
                    found.setdefault(name, set()).add(int(version))
                (Path(folder) / f"{stem}.tflite").unlink(missing_ok=True)
            left = sorted(path.stem for path in Path(folder).glob("*.tflite"))
            if not left or asked.returncode == 0:
                break
            # The one that crashed the process got as far as its rule.
            crashed = [line.split()[1] for line in asked.stdout.splitlines() if line.startswith("trying ")][
                -1
            ]
            assert crashed not in done, asked.stderr
            done.add(crashed)
            name, _, version = crashed.partition(".")
            found.setdefault(name, set()).add(int(version))
            (Path(folder) / f"{crashed}.tflite").unlink(missing_ok=True)
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _one_operator(schema: object, code: int, version: int) -> bytes:
    import flatbuffers

    model = schema.ModelT()
    model.version = 3
    entry = schema.OperatorCodeT()
    entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
    model.operatorCodes, model.buffers = [entry], [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors = []
    for name in (b"a", b"b"):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name = [1, 2, 4, 4], 0, 0, name
        graph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _ask_litert(path: Path) -> bool:
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_content=path.read_bytes())
    except ValueError as err:
        return "Didn't find op" not in str(err)
    return True


def _ask_openvino(path: Path) -> bool:
    from openvino.frontend import FrontEndManager

    front_end = FrontEndManager().load_by_framework("tflite")
    try:
        front_end.convert(front_end.load(str(path)))
    except Exception as err:
        return not any(text in str(err) for text in ("No translator", "No conversion rule", "not supported"))
    return True


def _probe(ask: Callable[[Path], bool], folder: Path) -> None:
    for path in sorted(folder.glob("*.tflite")):
        print(f"trying {path.stem}", flush=True)
        print(f"probe {path.stem} {'ok' if ask(path) else 'no'}", flush=True)


def litert() -> dict[str, object]:
    """torch: the converter's lowerings and own decompositions; tflite: probed kernels of the interpreter."""
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    import torch
    from litert_torch import fx_infra
    from litert_torch.backend import lowerings

    registered = lowerings.registry.global_registry.registered_ops
    core = torch._decomp.core_aten_decompositions()
    own = {**fx_infra.decomp.pre_convert_decomp(), **fx_infra.decomp.pre_lower_decomp()}
    operators = {str(target) for target in registered if isinstance(target, torch._ops.OpOverload)}
    decomposed = {str(target) for target in own if target not in core}
    return {
        "versions": _versions("litert-torch", "litert-converter", "ai-edge-litert", "torch"),
        "formats": {
            "pt2": {
                "how": "registry of lowerings",
                "operators": sorted(operators),
                "decomposed": sorted(decomposed),
            },
            "tflite": {"how": "probed", "operators": _probed_tflite("litert")},
        },
    }


def executorch() -> dict[str, object]:
    """torch: the runtime's portable kernels, and the operators that the XNNPACK partitioner takes."""
    import torch
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.exir.operator.convert import to_out_variant
    from executorch.exir.verification.verifier import EXIRATenDialectVerifier
    from executorch.extension.pybindings import portable_lib

    kernels = {
        name if "." in name.split("::")[1] else f"{name}.default"
        for name in portable_lib._get_operator_names()
    }
    portable = []
    verifier = EXIRATenDialectVerifier()
    for target in _torch_operators():
        try:
            verifier.check_valid_op(target)
        except Exception:  # not in the core ATen set: the lowering stops at it
            continue
        namespace, _, rest = str(target).partition(".")
        base, _, overload = rest.partition(".")
        for name in (base, f"{base}_copy"):
            packet = getattr(getattr(torch.ops, namespace), name, None)
            if packet is None or overload not in packet.overloads():
                continue
            try:
                outs = [str(to_out_variant(getattr(packet, overload))[0]).split(".")[-1]]
            except (RuntimeError, AttributeError, AssertionError, KeyError):
                # The search stumbles over overloads of numbers (pow): the names follow one scheme all the same.
                outs = ["out" if overload == "default" else f"{overload}_out"]
            if any(f"{namespace}::{name}.{out}" in kernels for out in outs):
                portable.append(str(target))
                break
    delegated = {
        config.target_name: sorted(kind.name.lower() for kind in config().supported_precision_types())
        for config in ALL_PARTITIONER_CONFIGS
    }
    kept = [config().get_original_aten() for config in ALL_PARTITIONER_CONFIGS]
    return {
        "versions": _versions("executorch", "torch"),
        "backends": sorted(portable_lib._get_registered_backend_names()),
        "formats": {
            "pt2": {
                "how": "kernels of the runtime, configurations of the partitioner",
                "operators": sorted(portable),
                "delegated": dict(sorted(delegated.items())),
                "kept_whole": sorted(str(target) for target in kept if target is not None),
            }
        },
    }


def coreml() -> dict[str, object]:
    """torch: the registry of the torch front end, by name without overload."""
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    return {
        "versions": _versions("coremltools", "torch"),
        "formats": {
            "pt2": {
                "how": "registry of the front end",
                "names": sorted(_TORCH_OPS_REGISTRY.name_to_func_mapping),
            }
        },
    }


def _versions(*packages: str) -> dict[str, str]:
    return {package: metadata.version(package) for package in packages}


MAKERS: dict[str, Callable[[], dict[str, object]]] = {
    maker.__name__: maker for maker in (onnxruntime, openvino, litert, executorch, coreml)
}


def write(runtime: str) -> Path:
    """Write the table of `runtime`."""
    made = MAKERS[runtime]()
    path = TABLES / f"{runtime}.json"
    record = {"runtime": runtime, "generated_by": "scripts/support_tables.py", **made}
    path.write_text(_text(record, 4) + "\n", encoding="utf-8")
    return path


def _text(value: object, depth: int, indent: str = "") -> str:
    """Return JSON with one operator a line: below `depth` levels everything is on one line."""
    if depth == 0 or not value or not isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {_text(value[key], depth - 1, inner)}" for key in sorted(value)]
        first, last = "{", "}"
    else:
        lines = [_text(item, depth - 1, inner) for item in value]
        first, last = "[", "]"
    return f"{first}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{last}"


def main(arguments: list[str]) -> int:
    """Write the tables that `arguments` name, or all."""
    if arguments[:1] == ["--one"]:
        print(write(arguments[1]))
        return 0
    if arguments[:1] and arguments[0].startswith("--probe-"):
        ask = {"--probe-litert": _ask_litert, "--probe-openvino": _ask_openvino}[arguments[0]]
        _probe(ask, Path(arguments[1]))
        return 0
    for runtime in arguments or list(MAKERS):
        # Vendors in one process disturb each other.
        subprocess.run([sys.executable, __file__, "--one", runtime], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
