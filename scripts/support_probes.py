"""Write the probes that `edgewright explain` reads: what became of one-operator models in the toolchains.

    python scripts/support_probes.py RUNTIME [OPERATOR ...]

With operators (by their names in torch's tests) those are tried anew, and the rest of the table is kept.

A registry tells that a converter knows an operator, not that what it writes is loaded by the runtime. So each operator
of torch is exported alone, with the sample inputs of torch's own operator tests, converted by Edgewright's backend in a
worker, and loaded; for runtimes that read ONNX the same is done with the node models of the onnx package, except those
that benchmarks/explain.py holds out. Kept is, per operator and dtype, whether it was accepted, else why not.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))

from edgewright.backends import registry  # noqa: E402
from edgewright.core.artifact import Artifact, Proof  # noqa: E402
from edgewright.core.errors import EdgewrightError, WorkerError  # noqa: E402
from edgewright.core.program import Program  # noqa: E402
from edgewright.core.target import Target  # noqa: E402
from edgewright.workers.pool import Limits, Worker  # noqa: E402

TABLES = ROOT / "src" / "edgewright" / "explain" / "tables"
_LIMITS = Limits(timeout_s=60.0, memory_bytes=4 << 30)
_LOOKED_AT = 8
_SAMPLES = 1  # of each operator and dtype
_TORCH_RUNTIMES = ("litert", "executorch", "coreml")
_ONNX_RUNTIMES = ("ncnn", "mnn")
_MAX_REASON = 160


def torch_programs(folder: Path, only: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, Program]]:
    """Yield (operator, dtype, program) for the operators of torch's tests that export as one operator alone."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    from edgewright.sources.torch_export import save_exported, tensor_specs

    for dtype in (torch.float32, torch.int64):
        for info in op_db:
            if dtype not in info.supported_dtypes("cpu") or (only and info.name not in only):
                continue
            for number, sample in enumerate(_samples(info, dtype)):
                module, tensors = _module(info.op, sample)
                try:
                    with torch.no_grad():  # or a mode of autograd would be part of the graph
                        exported = torch.export.export(module, tensors, strict=False)
                    inputs = tensor_specs(exported, "input", names=None, layout="nchw")
                    outputs = tensor_specs(exported, "output", names=None, layout="nchw")
                except Exception:  # what cannot be exported is no sample
                    continue
                targets = [
                    node.target
                    for node in exported.graph.nodes
                    if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
                ]
                if len(targets) != 1 or not inputs or any(0 in spec.shape for spec in inputs):
                    continue
                try:
                    path = save_exported(exported, folder / f"probe{number}.pt2")
                except Exception:  # named tuples that torch cannot write
                    continue
                yield (
                    str(targets[0]),
                    str(dtype).removeprefix("torch."),
                    Program(
                        path=path,
                        format="pt2",
                        inputs=inputs,
                        outputs=outputs,
                        sha256="0" * 64,
                        origin=info.name,
                        origin_format="torch",
                    ),
                )


def _samples(info: object, dtype: object) -> list[object]:
    """Return the first samples, those of rank 2 and more before those of scalars."""
    samples = []
    try:
        for sample in info.sample_inputs("cpu", dtype):
            samples.append(sample)
            if len(samples) == _LOOKED_AT:
                break
    except Exception:  # some want packages or devices that are not here
        pass
    return sorted(samples, key=lambda sample: getattr(sample.input, "ndim", 2) < 2)[:_SAMPLES]


def _module(function: object, sample: object) -> tuple[object, tuple[object, ...]]:
    """Return a module of the tensors of `sample` alone; everything else is fixed."""
    import torch
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, spec = tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    fixed = [None if index in places else leaf for index, leaf in enumerate(leaves)]

    class Probe(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> object:
            full = list(fixed)
            for place, tensor in zip(places, tensors, strict=True):
                full[place] = tensor
            first, args, kwargs = tree_unflatten(full, spec)
            made = function(first, *args, **kwargs)
            return tuple(made) if isinstance(made, tuple) else made  # torch cannot write its named tuples

    return Probe().eval(), tuple(leaves[index].detach() for index in places)


def onnx_programs(folder: Path) -> Iterator[tuple[str, str, Program]]:
    """Yield (operator, dtypes, program) for the node models that the benchmark does not hold out.

    Each comes as it is, and with all inputs but the first as constants, as trained models have them; the dtype of a
    constant ends in "*".
    """
    from benchmarks.explain_samples import node_sample, node_tests

    from edgewright.explain.read_onnx import read_onnx_graph
    from edgewright.sources.onnx import read_onnx

    for test in node_tests():
        for is_constant in (False, True):
            if is_constant and not _with_constants(test):
                continue
            sample = node_sample(test, folder)
            path = Path(sample.spec)
            if sample.is_held_out:
                continue
            try:
                program = read_onnx(path, spec=sample.spec)
                operations = read_onnx_graph(path).operations
            except EdgewrightError:
                continue
            if len(operations) == 1:
                given = [value for value in operations[0].inputs if value is not None]
                dtypes = ",".join(value.dtype + "*" * value.is_constant for value in given)
                yield operations[0].operator, dtypes, program


def _with_constants(test: object) -> bool:
    """Make every input of the model but the first an initialiser; return whether there was one to make."""
    import numpy as np
    import onnx

    graph = test.model.graph
    if len(graph.input) < 2 or not test.data_sets:
        return False
    for value, array in list(zip(graph.input, test.data_sets[0][0], strict=False))[1:]:
        if not isinstance(array, np.ndarray):
            return False
        graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del graph.input[1:]
    return True


def probe(runtime: str, only: frozenset[str]) -> None:
    """Write what `runtime` makes of each operator, or of `only` these."""
    backend = registry.get(runtime)
    path = TABLES / f"{runtime}.probes.json"
    known = json.loads(path.read_text(encoding="utf-8"))["operators"] if only and path.is_file() else {}
    found: dict[str, dict[str, list[str]]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        Worker(runtime, limits=_LIMITS, environment=backend.environment) as worker,
    ):
        folder = Path(name)
        programs = torch_programs(folder, only) if runtime in _TORCH_RUNTIMES else onnx_programs(folder)
        for operator, dtype, program in programs:
            reason = _outcome(worker, runtime, program, folder / "out")
            found.setdefault(operator, {}).setdefault(dtype, []).append(reason)
            shutil.rmtree(folder / "out", ignore_errors=True)
            print(f"{operator} {dtype}: {reason or 'ok'}"[:200], flush=True)
    for operator in known.keys() - found.keys():
        found[operator] = {dtype: [reason] for dtype, reason in known[operator].items()}
    write(runtime, found, {**backend.probe().versions, "torch": metadata.version("torch")})


def write(runtime: str, found: dict[str, dict[str, list[str]]], versions: dict[str, str]) -> None:
    """Write the table of `found`: operator -> dtypes -> why each sample was refused, empty where it was taken.

    An operator is taken when one of its samples is. Kept of the torch samples are only refusals that say what is
    missing: some other refusal may be one of the sample's shape.
    """
    is_torch = runtime in _TORCH_RUNTIMES
    operators: dict[str, dict[str, str]] = {}
    for operator, kinds in sorted(found.items()):
        for dtype, reasons in sorted(kinds.items()):
            if "" in reasons:
                operators.setdefault(operator, {})[dtype] = ""
            elif not is_torch or _says_what_is_missing(operator, reasons[0]):
                operators.setdefault(operator, {})[dtype] = reasons[0]
    record = {
        "runtime": runtime,
        "generated_by": "scripts/support_probes.py",
        "versions": versions,
        "format": "pt2" if is_torch else "onnx",
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in operators.items()]
    head = json.dumps(record, indent=1, sort_keys=True).removesuffix("\n}")
    text = head + ',\n "operators": {\n' + ",\n".join(lines) + "\n }\n}\n"
    (TABLES / f"{runtime}.probes.json").write_text(text, encoding="utf-8")


def _says_what_is_missing(operator: str, reason: str) -> bool:
    name = operator.split(".")[1]
    signs = (f"cannot lower the operator {operator}", "Didn't find op", f"no converter for aten::{name}")
    return any(sign in reason for sign in (*signs, "no kernel for", "not in Core ATen opset"))


def _outcome(worker: Worker, runtime: str, program: Program, workdir: Path) -> str:
    """Return an empty text when the artifact is made and loaded, else why not."""
    target = Target(runtime=runtime)
    try:
        answer = worker.call(
            "edgewright.backends.operations:convert",
            {
                "program": program.to_json(),
                "target": target.to_json(),
                "calibration": None,
                "workdir": str(workdir),
            },
        )
        artifact = Artifact.from_json(answer["artifact"])
        if artifact.proof in (Proof.RUN, Proof.INTERPRETED):
            worker.call("benchmarks.explain_inside:load", {"artifact": artifact.to_json()})
    except WorkerError as err:
        return f"the converter crashes: {_short(str(err))}"
    except EdgewrightError as err:
        return _short(str(err))
    return ""


def _short(text: str) -> str:
    return " ".join(text.replace(tempfile.gettempdir(), "").split())[:_MAX_REASON]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    probe(sys.argv[1], frozenset(sys.argv[2:]))
