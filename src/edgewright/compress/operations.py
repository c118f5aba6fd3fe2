"""Worker operations of a compression: run one pass, and count what a program holds."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.compress import registry
from edgewright.compress.checkpoints import Checkpoints, ResumableFit
from edgewright.compress.passes import Bench, Compressed
from edgewright.core.errors import ConversionError, DataError
from edgewright.core.options import read_options
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.data.datasets import Dataset
from edgewright.data.handover import take_over

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Batch, Train

PROGRESS_NAME = "progress.json"
CHECKPOINTS_NAME = "checkpoints"
_REPORT_INTERVAL_S = 0.02
_BATCH = 32
_FOLD_SAMPLES = 16


def run_pass(arguments: dict[str, object]) -> dict[str, object]:
    """Run one pass on a program.

    Args:
        arguments: "pass" (name), "options", "program", "original", "teacher" or None (records), "folder" of the step,
            "calibration" (a record of `data.handover`), "training" or None: {"train": package.module:function or "",
            "import_from": folder or "", "data": a record of `data.handover` or None, "options"}, "seed".
    Returns:
        {"program", "facts", "tables", "notes"}, and what `count` returns of the program.
    Raises:
        UsageError, ConversionError, TrainingError: see `Pass.run`.
    """
    import torch

    chosen = registry.get(str(arguments["pass"]))
    options = read_options(chosen.Options, _record(arguments["options"]), what=chosen.name)  # type: ignore[type-var]
    program = Program.from_json(_record(arguments["program"]))
    folder, seed = Path(str(arguments["folder"])), int(str(arguments["seed"]))
    report = _Reporter(folder / PROGRESS_NAME)
    calibration = take_over(_record(arguments["calibration"]))
    training = arguments["training"]
    train = None if training is None else _train(_record(training), program)
    teacher = arguments["teacher"]
    bench = Bench(
        folder=folder,
        calibration=batches(calibration, program.inputs),
        labels=_labels(calibration, program.inputs),
        fit=ResumableFit(train, Checkpoints(folder / CHECKPOINTS_NAME), report, seed),
        teacher=None if teacher is None else Program.from_json(_record(teacher)),
        original=Program.from_json(_record(arguments["original"])),
        report=report,
        seed=seed,
    )
    random.seed(seed)
    torch.manual_seed(seed)
    made = chosen.run(program, options, bench)
    _require_own_file(made, folder, chosen.name)
    return {
        "program": made.program.to_json(),
        "facts": made.facts,
        "tables": made.tables,
        "notes": list(made.notes),
        **count({"program": made.program.to_json()}),
    }


def fold(arguments: dict[str, object]) -> dict[str, object]:
    """Fold a processing into its program.

    Args:
        arguments: "program" (record, .pt2), "specification" (path of its file), "folder" for both results,
            "is_float", and "data": a folder of raw inputs or "".
    Returns:
        {"program", "specification" (path), "inside", "outside", "proof"}, as of `folding.program.Folding`.
    Raises:
        UsageError, ConversionError: see `folding.program.fold_processing`.
    """
    from edgewright.compress.folding.program import fold_processing
    from edgewright.data.processed import read_raw_samples
    from edgewright.processing.processor import Signature, plan
    from edgewright.processing.specification import read_specification, write_specification

    program = Program.from_json(_record(arguments["program"]))
    folder, data = Path(str(arguments["folder"])), str(arguments.get("data", ""))
    signature = Signature(inputs=program.inputs, outputs=program.outputs)
    checked = plan(read_specification(Path(str(arguments["specification"]))), signature)
    made = fold_processing(
        program,
        checked,
        folder=folder,
        is_float=bool(arguments.get("is_float", True)),
        samples=read_raw_samples(Path(data), checked, most=_FOLD_SAMPLES) if data else (),
    )
    return {
        "program": made.program.to_json(),
        "specification": str(write_specification(made.specification, folder)),
        "inside": list(made.inside),
        "outside": list(made.outside),
        "proof": made.proof.text(),
    }


def check_train(arguments: dict[str, object]) -> dict[str, object]:
    """Import the user's training function {"train", "import_from"} and return nothing.

    Raises:
        TrainingError: it is not there, cannot be imported, or cannot be called with (module, epochs).
    """
    _user_train(arguments)
    return {}


def count(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"parameters", "macs" or None, "sparsity" or None, "precision"} of {"program": a `.pt2` program}.

    The sparsity is the share of exact zeros in tensors of at least 2 dimensions: kernels and matrices. The precision
    is that of the operators in the file, which may be another than the program's, as of `torch_export.precision_of`.
    """
    import torch

    from edgewright.backends.vendor import load_exported, quiet
    from edgewright.sources.inspection import inspect_program
    from edgewright.sources.torch_export import precision_of

    program = Program.from_json(_record(arguments["program"]))
    found = inspect_program(program)
    with quiet():
        exported = load_exported(program)
    weights = [
        tensor
        for tensor in exported.state_dict.values()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.ndim >= 2
    ]
    total = sum(tensor.numel() for tensor in weights)
    zeros = sum(int((tensor == 0).sum()) for tensor in weights)
    return {
        "parameters": found.parameters,
        "macs": found.macs,
        "sparsity": zeros / total if total else None,
        "precision": precision_of(exported),
    }


def batches(dataset: Dataset, inputs: Sequence[TensorSpec]) -> list[Batch]:
    """Return all samples as inputs of the model: many at a time where every input's batch is dynamic, else one."""
    import numpy as np
    import torch

    size = _batch_size(inputs)
    return [
        tuple(
            torch.from_numpy(np.array(_shaped(dataset.inputs[spec.name][start : start + size], spec)))
            for spec in inputs
        )
        for start in range(0, dataset.count, size)
    ]


class _Reporter:
    """Writes what the pass says for the parent to read, never half; what comes in quick succession is thinned out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.part")
        self._written_s = 0.0

    def __call__(self, line: str, share: float | None) -> None:
        now_s = time.monotonic()
        if now_s - self._written_s < _REPORT_INTERVAL_S and share is not None:
            return
        self._written_s = now_s
        record = {"line": line, "share": None if share is None else min(max(float(share), 0.0), 1.0)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._aside.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        self._aside.replace(self._path)


def _train(record: Mapping[str, object], program: Program) -> Train:
    if record["train"]:
        return _user_train(record)
    from edgewright.compress.training import Trainer, TrainingOptions

    options = read_options(TrainingOptions, _record(record["options"]), what="training")
    layout = next((spec.layout for spec in program.inputs if spec.layout), None)
    return Trainer(take_over(_record(record["data"])), options, layout=layout)


def _user_train(record: Mapping[str, object]) -> Train:
    from edgewright.compress.user_training import load_train

    home = str(record["import_from"])
    return load_train(str(record["train"]), folder=Path(home) if home else None)


def _labels(dataset: Dataset, inputs: Sequence[TensorSpec]) -> list[torch.Tensor] | None:
    """Return the class numbers of each calibration batch, or None where the labels are none."""
    import numpy as np
    import torch

    labels = dataset.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "biu":
        return None
    size = _batch_size(inputs)
    numbers = torch.from_numpy(labels.astype(np.int64))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _batch_size(inputs: Sequence[TensorSpec]) -> int:
    return _BATCH if all(spec.has_dynamic_batch for spec in inputs) else 1


def _shaped(samples: object, spec: TensorSpec) -> object:
    """Return [n, ...] samples as the model takes them: a sample that has the input's full shape is no batch of one."""
    import numpy as np

    array = np.asarray(samples)
    if array.ndim == len(spec.shape):
        return array
    if array.ndim == len(spec.shape) + 1 and len(array) == 1:
        return array[0]
    raise DataError(
        f"samples of {spec.name!r} have shape {list(array.shape[1:])}, but the model takes {spec}."
    )


def _require_own_file(made: Compressed, folder: Path, name: str) -> None:
    path = made.program.path
    if folder.resolve() not in path.resolve().parents or not path.is_file():
        raise ConversionError(
            f"pass {name!r} wrote {path}, which is not in its folder {folder}. A bug of the pass."
        )


def _record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
