"""Everything a build needs of the data: evaluation samples on disk, calibration, metric, warnings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgewright.core.contracts import Calibration
from edgewright.core.errors import DataError, UnknownNameError, UsageError
from edgewright.core.program import Program
from edgewright.core.target import Precision
from edgewright.core.tensors import Array, TensorSpec, to_layout
from edgewright.data.calibration import choose_calibration
from edgewright.data.datasets import Dataset, load_dataset, make_dataset
from edgewright.data.metrics import Metric, get_metric
from edgewright.data.synthetic import synthetic_inputs
from edgewright.processing.processor import Plan

SYNTHETIC_COUNT = 32


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """What the user said about data; empty texts are "not given"."""

    data: str = ""
    calibration: str = ""
    calibration_count: int = 512
    needs_calibration: bool = False
    metric: str = ""
    values: tuple[str, ...] = ()
    seed: int = 0
    processing: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Data in the form that workers take.

    Attributes:
        dataset: the evaluation samples, or synthetic ones (then `is_synthetic`, and `metric` is None).
        folder: holds <i>.npy, the samples of input i of the program.
        sources: the program's inputs, which `folder` follows.
        severe: findings that make quantized results untrustworthy.
    """

    dataset: Dataset
    is_synthetic: bool
    folder: Path
    sources: tuple[TensorSpec, ...]
    calibration: Calibration | None
    metric: Metric | None
    warnings: tuple[str, ...]
    severe: tuple[str, ...]


def prepare(request: DataRequest, program: Program, workdir: Path) -> Prepared:
    """Read and check the data of a build, and write the samples into `workdir`.

    Without data the parity is measured on synthetic inputs, and nothing can be calibrated.

    Raises:
        DataError: the data do not fit the program or the metric.
    """
    metric = get_metric(request.metric) if request.metric else None
    constants = _constants(request.values, program)
    evaluation, training = (
        read_for(program, spec, values=request.values, processing=request.processing) if spec else None
        for spec in (request.data, request.calibration)
    )
    warnings: list[str] = []
    severe: list[str] = []
    for dataset in (evaluation, training):
        warnings += [str(lint) for lint in dataset.lints] if dataset else []
    if metric is None and evaluation is not None and _has_class_labels(evaluation):
        metric = get_metric("top1")
    if metric is not None and evaluation is None:
        raise DataError(f"metric {metric.name!r} needs an evaluation set. Give one with --data.")
    if metric is not None and metric.needs_labels and evaluation is not None and evaluation.labels is None:
        raise DataError(
            f"metric {metric.name!r} needs labels, but {request.data} has none. Add them under 'labels'."
        )
    calibration = None
    # What is quantized already keeps its ranges.
    if request.needs_calibration and program.precision == Precision.FP32 and (training or evaluation):
        calibration, lints = choose_calibration(
            training,
            evaluation,
            count=request.calibration_count,
            seed=request.seed,
            workdir=workdir / "calibration",
        )
        warnings += [str(lint) for lint in lints]
        severe += [lint.message for lint in lints if lint.is_severe]
    dataset = evaluation or synthetic_inputs(
        program.inputs, count=SYNTHETIC_COUNT, seed=request.seed, values=constants
    )
    if evaluation is None:
        warnings.append(
            "no evaluation data: parity is measured on synthetic inputs, accuracy is not measured"
        )
    folder = workdir / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    for index, spec in enumerate(program.inputs):
        np.save(folder / f"{index}.npy", dataset.inputs[spec.name], allow_pickle=False)
    return Prepared(
        dataset=dataset,
        is_synthetic=evaluation is None,
        folder=folder,
        sources=program.inputs,
        calibration=calibration,
        metric=metric,
        warnings=tuple(warnings),
        severe=tuple(severe),
    )


def _has_class_labels(dataset: Dataset) -> bool:
    labels = dataset.labels
    return labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"


def _constants(texts: tuple[str, ...], program: Program) -> dict[str, Array]:
    """Return input name -> one sample filled with the number of `name=number`, as a data set would hold it."""
    specs = {spec.name: spec for spec in program.inputs}
    constants: dict[str, Array] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in specs:
            raise UnknownNameError.of("input", name, specs)
        try:
            number = float(value)
        except ValueError:
            equals = ""
            number = 0.0
        if not equals:
            raise UsageError(f"value {text!r} is not NAME=NUMBER, e.g. sr=16000.")
        own = specs[name].shape
        shape = tuple(1 if dim is None else dim for dim in (own[1:] if own and own[0] is None else own))
        constants[name] = np.full(shape, number, dtype=specs[name].dtype)
    return constants


def read_for(
    program: Program, spec: str, *, values: tuple[str, ...] = (), processing: Plan | None = None
) -> Dataset:
    """Return the data set of `spec` in the program's layout, constants added for the inputs that it lacks.

    Data come in the layout of the source; a program whose layout the user changed gets them transposed.

    Args:
        values: constants for inputs that the data do not hold, "name=number".
        processing: for a folder of raw inputs; it gives the tensors of the program itself.
    Raises:
        DataError: the data do not fit the program.
    """
    constants = _constants(values, program)
    wanted = [s for s in program.inputs if s.name not in constants]
    if processing is None:
        wanted = [_source_spec(s, program) for s in wanted]
    dataset = load_dataset(spec, wanted, processing)
    inputs = dict(dataset.inputs)
    for own, source in zip((s for s in program.inputs if s.name not in constants), wanted, strict=True):
        inputs[own.name] = to_layout(inputs[own.name], source.layout, own.layout)
    for name, value in constants.items():
        inputs[name] = np.repeat(value[None], dataset.count, axis=0)
    if not constants and all(inputs[s.name] is dataset.inputs[s.name] for s in wanted):
        return dataset
    return make_dataset(inputs, dataset.labels, description=dataset.description, lints=dataset.lints)


def _source_spec(spec: TensorSpec, program: Program) -> TensorSpec:
    if program.origin_format not in ("torch", "pt2") or spec.layout != "nhwc":
        return spec
    n, h, w, c = spec.shape
    return replace(spec, shape=(n, c, h, w), layout="nchw")
