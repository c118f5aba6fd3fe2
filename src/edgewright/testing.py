"""The conformance suite: what every backend must do, built-in or not.

    from edgewright.testing import check_backend
    check_backend("my_runtime", programs=[...], calibrations={...}, workdir=tmp_path)

It needs real programs: small ones of every format that the backend reads, best one with two inputs and two outputs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgewright.backends import registry
from edgewright.backends.reference import ReferenceBackend
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Backend, Calibration, Session
from edgewright.core.errors import DataError, EdgewrightError, FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, to_layout

SEED = 20240229
# The least signal-to-noise ratio, in dB, of a faithful conversion on random inputs. float32 sums in another order
# keep 100 dB; float16 has 11 bits (62 dB), int8 weights 8 bits (44 dB) and int8 activations lose some bits more in
# every layer. 4-bit weights have 20 dB at best. Half of the weights gone leaves whatever the network makes of it:
# that bound only tells a pruned model from a broken one.
MIN_SNR_DB: Mapping[Precision, float] = {
    Precision.FP32: 80.0,
    Precision.FP16: 40.0,
    Precision.W8: 25.0,
    Precision.W8A8: 15.0,
    Precision.W4A8: 10.0,
    Precision.W4: 10.0,
    Precision.PRUNED: 3.0,
}
VENDOR_PACKAGES = (
    "torch",
    "torchao",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "litert_torch",
    "tensorflow",
    "executorch",
    "coremltools",
    "ncnn",
    "pnnx",
    "MNN",
    "tensorrt",
    "h5py",
)

Quantize = Callable[[Program, Precision, Calibration, Path], Program]


@dataclass(frozen=True, kw_only=True)
class CheckedPair:
    """One program and precision that was converted, opened, run and compared.

    Attributes:
        snr_db: the smallest over all outputs; each over 16 random inputs. 0 where nothing here runs the artifact.
        proof: what the artifact says can be shown of it here.
        refusal: why the pair was not done; empty where it was.
    """

    program: str
    precision: Precision
    size_bytes: int = 0
    snr_db: float = 0.0
    refusal: str = ""
    proof: Proof = Proof.RUN


@dataclass(frozen=True, kw_only=True)
class ConformanceReport:
    """What was checked; every pair in it passed or was refused with a reason."""

    backend: str
    pairs: tuple[CheckedPair, ...]

    @property
    def converted(self) -> tuple[CheckedPair, ...]:
        """The pairs that were really converted."""
        return tuple(pair for pair in self.pairs if not pair.refusal)


def check_backend(
    backend: Backend | str,
    *,
    programs: Sequence[Program],
    calibrations: Mapping[str, Calibration],
    workdir: Path,
    quantize: Quantize | None = None,
    precisions: Sequence[Precision] | None = None,
    formats: Sequence[str] | None = None,
) -> ConformanceReport:
    """Run the conformance suite in this process and return what was checked.

    A backend with an environment of its own is checked in a worker of that environment.

    Args:
        backend: the backend, or its registered name.
        programs: float programs of the formats that it reads.
        calibrations: program path (as text) -> calibration, for w8a8.
        workdir: a folder of the caller's; everything is written into it.
        quantize: makes the PT2E program where the backend asks for one; None uses `edgewright.compress`.
        precisions: only these; None is all that the backend claims.
        formats: of which programs must be given; None is all that the backend reads. Leave out those that no
            toolchain here can write.
    Raises:
        AssertionError: the backend breaks the contract; the message says where.
        EdgewrightError: a conversion failed that the backend had not refused.
    """
    made = registry.get(backend) if isinstance(backend, str) else backend
    _check_probe(made)
    given = {program.format for program in programs}
    missing = [form for form in formats or made.consumes if form not in given]
    assert not missing, f"{made.name} reads {missing}, but no such program was given to check"
    pairs = []
    for number, program in enumerate(programs):
        for precision in Precision:
            if precisions is not None and precision not in precisions:
                continue
            folder = workdir / f"{number}-{program.path.stem}-{precision}"
            pairs.append(
                _check_pair(
                    made,
                    program,
                    Target(runtime=made.name, precision=precision),
                    calibrations.get(str(program.path)),
                    folder,
                    quantize or _quantize,
                )
            )
    report = ConformanceReport(backend=made.name, pairs=tuple(pairs))
    assert report.converted, f"{made.name} refused every program"
    return report


def _check_probe(backend: Backend) -> None:
    """The probe and `refuses` must not import a vendor package, or the command line would start in seconds."""
    assert isinstance(backend, Backend), f"{backend!r} lacks a member of edgewright.core.contracts.Backend"
    assert backend.consumes, f"{backend.name} reads no format"
    assert backend.precisions, f"{backend.name} has no precision"
    kind = type(backend)
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from {kind.__module__} import {kind.__qualname__} as kind\n"
        "support = kind().probe()\n"
        f"print([name for name in {VENDOR_PACKAGES!r} if name in sys.modules], bool(support.reason))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{backend.name} cannot be probed in a fresh process: {ran.stderr[-500:]}"
    imported = ran.stdout.split("]")[0] + "]"
    assert imported == "[]", f"probing {backend.name} imports {imported}; read package metadata instead"
    support = backend.probe()
    assert support.is_available, f"{backend.name} is not available here: {support.reason}"
    assert support.versions, f"{backend.name}.probe() names no version"


def _check_pair(
    backend: Backend,
    program: Program,
    target: Target,
    calibration: Calibration | None,
    folder: Path,
    quantize: Quantize,
) -> CheckedPair:
    what = f"{backend.name} on {program.path.name} in {target.precision}"
    reason = backend.refuses(program, target)
    if reason is not None:
        assert reason.strip(), f"{what}: refused without a reason"
        _expect(FormatMismatchError, what, lambda: backend.convert(program, target, calibration, folder))
        return CheckedPair(program=program.path.name, precision=target.precision, refusal=reason)
    assert program.format in backend.consumes, f"{what}: not refused, though {program.format} is not read"
    assert target.precision in backend.precisions, f"{what}: not refused, though it is not claimed"
    source = program
    if backend.quantizer(program, target) is Quantizer.PT2E:
        assert calibration is not None, f"{what}: give a calibration for {program.path}"
        source = quantize(program, target.precision, calibration, folder / "pt2e")
    first, second = (folder / name for name in ("first", "second"))
    before = _files_in(folder)
    artifact = _convert(backend, source, target, calibration, first)
    again = _convert(backend, source, target, calibration, second)
    stray = _files_in(folder) - before - _files_in(first) - _files_in(second)
    assert not stray, f"{what}: writes {sorted(map(str, stray))} outside its workdir"
    assert artifact.sha256 == again.sha256, f"{what}: the same conversion gives two digests"
    _check_record(artifact, program, target, first, what)
    if artifact.proof in (Proof.CONVERTED, Proof.RECIPE):
        assert artifact.notes, f"{what}: nothing here runs it, and no note says where it would run"
        return CheckedPair(
            program=program.path.name,
            precision=target.precision,
            size_bytes=artifact.size_bytes,
            proof=artifact.proof,
        )
    snr_db = _check_session(backend, artifact, program, target, what)
    return CheckedPair(
        program=program.path.name,
        precision=target.precision,
        size_bytes=artifact.size_bytes,
        snr_db=snr_db,
        proof=artifact.proof,
    )


def _convert(
    backend: Backend, program: Program, target: Target, calibration: Calibration | None, folder: Path
) -> Artifact:
    folder.mkdir(parents=True)
    return backend.convert(program, target, calibration, folder)


def _check_record(artifact: Artifact, program: Program, target: Target, folder: Path, what: str) -> None:
    artifact.verify_digest()
    assert artifact.target == target, f"{what}: the artifact is for {artifact.target}"
    assert artifact.toolchain, f"{what}: the artifact names no toolchain"
    assert artifact.size_bytes > 0, f"{what}: the artifact is empty"
    assert Artifact.from_json(artifact.to_json()) == artifact, f"{what}: the record does not survive JSON"
    for file in artifact.files:
        is_own = file.resolve().is_relative_to(folder.resolve())
        assert is_own or file == program.path, f"{what}: {file} is outside the workdir"
    for side, have, want in (
        ("inputs", artifact.inputs, program.inputs),
        ("outputs", artifact.outputs, program.outputs),
    ):
        assert len(have) == len(want), f"{what}: {len(have)} {side}, the source has {len(want)}"
        for got, expected in zip(have, want, strict=True):
            assert got.dtype == expected.dtype, f"{what}: {got}, the source has {expected}"
            assert _fits(got, expected), f"{what}: {got} does not take what the source's {expected} takes"


def _fits(got: TensorSpec, expected: TensorSpec) -> bool:
    """A dynamic dimension may become static, a static one must stay what it is (or move with the layout)."""
    shape = expected.shape
    if len(shape) == 4 and got.layout is not None and expected.layout not in (None, got.layout):
        axes = (0, 2, 3, 1) if got.layout == "nhwc" else (0, 3, 1, 2)
        shape = tuple(shape[axis] for axis in axes)
    return len(got.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(got.shape, shape, strict=True)
    )


def _check_session(
    backend: Backend, artifact: Artifact, program: Program, target: Target, what: str
) -> float:
    reference = ReferenceBackend()
    plain = Target(runtime=reference.name)
    source = reference.open(reference.convert(program, plain, None, artifact.path.parent), plain)
    session = backend.open(artifact, target)
    assert isinstance(session, Session), f"{what}: open() gave no Session"
    assert session.inputs == artifact.inputs, f"{what}: the session's inputs are not the artifact's"
    assert session.outputs == artifact.outputs, f"{what}: the session's outputs are not the artifact's"
    is_dynamic = all(spec.has_dynamic_batch for spec in artifact.inputs)
    wanted: list[list[Array]] = [[] for _ in program.outputs]
    gotten: list[list[Array]] = [[] for _ in program.outputs]
    # One input says little: an output that happens to be near zero has a poor ratio in any precision.
    for number, batch in enumerate((1, 3, 12) if is_dynamic else (1,) * 16):
        given = _random_inputs(program.inputs, batch, seed=SEED + number)
        want = list(_in_order(source.run(given), program.outputs))
        renamed = _as_artifact(given, program.inputs, artifact.inputs)
        results = session.run(renamed)
        assert set(results) == {spec.name for spec in artifact.outputs}, f"{what}: outputs {sorted(results)}"
        got = [
            to_layout(array, have.layout, expected.layout)
            for array, have, expected in zip(
                _in_order(results, artifact.outputs), artifact.outputs, program.outputs, strict=True
            )
        ]
        repeated = list(_in_order(session.run(renamed), artifact.outputs))
        for one, other in zip(_in_order(results, artifact.outputs), repeated, strict=True):
            assert np.array_equal(one, other), f"{what}: two runs on one input differ"
        for place, (spec, have, expected) in enumerate(zip(program.outputs, got, want, strict=True)):
            assert have.shape == expected.shape, f"{what}: {spec.name} is {have.shape}, not {expected.shape}"
            assert have.dtype == expected.dtype, f"{what}: {spec.name} is {have.dtype}, not {expected.dtype}"
            wanted[place].append(expected.ravel())
            gotten[place].append(have.ravel())
    snr_db = min(
        _snr_db(np.concatenate(expected), np.concatenate(have))
        for expected, have in zip(wanted, gotten, strict=True)
    )
    least = MIN_SNR_DB[target.precision]
    assert snr_db >= least, f"{what}: {snr_db:.1f} dB against the source, at least {least:g} dB are expected"
    _check_bad_input(session, renamed, is_dynamic, what)
    session.close()
    source.close()
    profiled = backend.open(artifact, target, profile=True)
    costs = profiled.layers(renamed)
    assert all(cost.time_us >= 0 and cost.name for cost in costs), f"{what}: a layer without name or time"
    profiled.close()
    return float(snr_db)


def _check_bad_input(session: Session, good: Arrays, is_dynamic: bool, what: str) -> None:
    name = session.inputs[0].name
    array = good[name]
    bad = {
        "another rank": {**good, name: array[..., np.newaxis]},
        "another dtype": {**good, name: array.astype(np.float64)},
        "another name": {**{k: v for k, v in good.items() if k != name}, f"{name}_other": array},
        "another size": {**good, name: np.concatenate([array, array], axis=-1)},
    }
    if not is_dynamic:
        bad["another batch"] = {**good, name: np.concatenate([array, array], axis=0)}
    for kind, arrays in bad.items():
        _expect(DataError, f"{what}: input of {kind}", lambda arrays=arrays: session.run(arrays))  # type: ignore[misc]
    session.run(good)


def _expect(kind: type[EdgewrightError], what: str, call: Callable[[], object]) -> None:
    message = None
    try:
        call()
    except kind as err:
        message = str(err).strip()
    assert message is not None, f"{what}: no {kind.__name__}"
    assert message, f"{what}: {kind.__name__} without a message"


def _random_inputs(specs: Sequence[TensorSpec], batch: int, *, seed: int) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    inputs = {}
    for spec in specs:
        shape = [batch if axis == 0 and size is None else size or 1 for axis, size in enumerate(spec.shape)]
        if spec.dtype.startswith("float"):
            inputs[spec.name] = draw.normal(0.3, 1.0, shape).astype(spec.dtype)
        elif spec.dtype == "bool":
            inputs[spec.name] = draw.integers(0, 2, shape).astype(bool)
        else:
            inputs[spec.name] = draw.integers(0, 100, shape).astype(spec.dtype)
    return inputs


def _as_artifact(given: Arrays, have: Sequence[TensorSpec], want: Sequence[TensorSpec]) -> dict[str, Array]:
    return {
        new.name: to_layout(given[old.name], old.layout, new.layout)
        for old, new in zip(have, want, strict=True)
    }


def _in_order(arrays: Arrays, specs: Sequence[TensorSpec]) -> list[Array]:
    return [arrays[spec.name] for spec in specs]


def _snr_db(expected: Array, got: Array) -> float:
    """Return 10 log10(signal power / error power); infinite where both are equal."""
    signal = np.asarray(expected, dtype=np.float64)
    error = np.asarray(got, dtype=np.float64) - signal
    if not np.isfinite(error).all():
        return -np.inf
    power = float(np.square(error).sum())
    if power == 0.0:
        return np.inf
    return float(10 * np.log10(max(float(np.square(signal).sum()), np.finfo(float).tiny) / power))


def _files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _quantize(program: Program, precision: Precision, calibration: Calibration, folder: Path) -> Program:
    from edgewright.compress.quantize import quantize_pt2e

    quantized = quantize_pt2e(program, precision=precision, calibration=calibration, workdir=folder)
    return replace(quantized, inputs=program.inputs)
