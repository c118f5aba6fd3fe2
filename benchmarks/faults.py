"""Seeded faults: is each one reported as degraded or failed, for the right reason, with an exit code that is not 0?

Every fault is put in by a backend that really does it (benchmarks/faulty.py), by wrong calibration data, or by a
wrong or changed artifact. A fault counts as caught only when the reason holds the words that belong to it. The
sound runs of the same models, precisions and data are made as well and must all be ok.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from real_models import write_crops
from reporting import conditions, parser_for, print_table, write_json

import edgewright
from edgewright import sample
from edgewright.core.result import Result

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the product said of one fault."""

    name: str
    status: str
    exit_code: int
    reason: str
    expected: str

    @property
    def is_caught(self) -> bool:
        """Reported, with an exit code, and for the right reason."""
        return self.status in ("degraded", "failed") and self.exit_code != 0 and self.expected in self.reason


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with its data."""

    model: str
    data: Path
    calibration: Path | None
    metric: str
    shapes: tuple[str, ...] = ()
    weights: str = ""

    def build(
        self, runtime: str, precision: str, work: Path, calibration: Path | None = None
    ) -> edgewright.BuildResult:
        """Build one target."""
        given = calibration or self.calibration
        return edgewright.build(
            self.model,
            weights=self.weights or None,
            input_shapes=self.shapes,
            data=self.data,
            calibration=given,
            to=(runtime,),
            precision=(precision,),
            metric=self.metric,
            out=tempfile.mkdtemp(dir=work),
            seed=SEED,
        )


def main() -> int:
    """Run every fault; return 0 when all are caught and every sound run beside them is ok."""
    parser = parser_for(__doc__)
    parser.add_argument("--only", default="", help="run the faults whose name holds this text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-faults-") as folder:
        work = Path(folder)
        os.environ["EDGEWRIGHT_CACHE"] = str(work / "cache")
        faults = _faults(work, options.assets)
        outcomes = []
        for name, run in faults.items():
            if options.only in name:
                outcomes.append(run(name))
                last = outcomes[-1]
                mark = "caught" if last.is_caught else "MISSED"
                print(
                    f"{mark:7} {name}: {last.status}, exit {last.exit_code}: {last.reason[:150]}", flush=True
                )
        alarms = [] if options.only else _false_alarms(work, options.assets)
    print()
    print_table(
        ["fault", "status", "exit", "caught"],
        [[o.name, o.status, o.exit_code, "yes" if o.is_caught else "NO"] for o in outcomes],
    )
    caught = sum(outcome.is_caught for outcome in outcomes)
    print(
        f"\n{caught} of {len(outcomes)} faults caught; {len(alarms)} false alarms in the sound runs beside them"
    )
    for alarm in alarms:
        print(f"  false alarm: {alarm.id}: {alarm.reason}")
    record = {"faults": [vars(o) | {"caught": o.is_caught} for o in outcomes], "conditions": conditions()}
    write_json(options.json, record)
    return 0 if caught == len(outcomes) and not alarms else 1


def _cases(work: Path, assets: Path) -> dict[str, Case]:
    digits = Case(
        model=sample.MODEL,
        weights=str(sample.WEIGHTS),
        shapes=("x".join(map(str, sample.INPUT_SHAPE)),),
        data=sample.EVAL_DATA,
        calibration=sample.CALIBRATION_DATA,
        metric="top1",
    )
    cases = {"digits": digits}
    cifar = assets / "models" / "mlperf-tiny" / "ic_resnet8_fp32.tflite"
    if cifar.is_file():
        images = assets / "data" / "coco-mini" / "images"
        photos = write_crops(images, work / "photos.npz", np.float32, 0)
        cases["photos"] = Case(model=str(cifar), data=photos, calibration=None, metric="cosine")
    return cases


def _faults(work: Path, assets: Path) -> dict[str, Callable[[str], Outcome]]:
    cases = _cases(work, assets)
    digits = cases["digits"]
    rng = np.random.default_rng(SEED)
    with np.load(digits.calibration or "") as kept:
        inputs = kept["inputs"]
    np.savez(work / "noise.npz", inputs=rng.uniform(0, 1, inputs.shape).astype(np.float32))
    np.savez(work / "unscaled.npz", inputs=inputs * 255)

    follows = "differs from the source"

    def backend(case: Case, fault: str, precision: str, expected: str = follows) -> Callable[[str], Outcome]:
        return lambda name: _outcome(name, case.build(f"faulty:{fault}", precision, work), expected)

    def calibrated(path: Path) -> Callable[[str], Outcome]:
        return lambda name: _outcome(
            name, digits.build("onnxruntime", "w8a8", work, calibration=path), "calibration cannot be trusted"
        )

    faults: dict[str, Callable[[str], Outcome]] = {
        "wrong mean, fp32": backend(digits, "WrongMean", "fp32"),
        "wrong scale, fp16": backend(digits, "WrongScale", "fp16"),
        "wrong scale, w8a8": backend(digits, "WrongScale", "w8a8"),
        "one sample late, fp32": backend(digits, "OneSampleLate", "fp32"),
        "zeroed weights of a layer, fp32": backend(digits, "ZeroedLayer", "fp32"),
        "zeroed weights of a layer, fp16": backend(digits, "ZeroedLayer", "fp16"),
        "permuted weights of a layer, fp32": backend(digits, "PermutedLayer", "fp32"),
        "permuted weights of a layer, fp16": backend(digits, "PermutedLayer", "fp16"),
        "flipped bias, fp32": backend(digits, "FlippedBias", "fp32"),
        "scales of the neighbour channel, w8": backend(digits, "ShiftedScales", "w8"),
        "scales of the neighbour channel, w8a8": backend(digits, "ShiftedScales", "w8a8"),
        "another training run's weights, fp32": backend(digits, "OtherModel", "fp32"),
        "random calibration, w8a8": calibrated(work / "noise.npz"),
        "calibration not scaled, w8a8": calibrated(work / "unscaled.npz"),
        "fp16 overflow": lambda name: _outcome(name, _overflow(work), "65504"),
        "two outputs swapped, fp32": lambda name: _outcome(name, _swapped_outputs(work), follows),
        "stale artifact": lambda name: _stale(name, digits, work),
        "artifact changed on disk": lambda name: _changed(name, digits, work),
        "artifact changed before it is run": backend(digits, "ModifiedAfterwards", "fp32", "changed after"),
        "truncated artifact": backend(digits, "Truncated", "fp32", "cannot"),
        "converter crashes": backend(digits, "Crashes", "fp32", "SIGSEGV"),
        "converter floods and exits": backend(digits, "FloodsAndExits", "fp32", "no answer"),
        "converter hangs": lambda name: _hanging(name, digits, work),
    }
    if "photos" in cases:
        for precision in ("fp32", "fp16", "w8"):
            faults[f"swapped channels, {precision}"] = backend(cases["photos"], "SwappedChannels", precision)
        faults["wrong layout, fp32"] = backend(cases["photos"], "WrongLayout", "fp32")
    else:
        print(f"no assets in {assets}: the faults of an image model are left out")
    return faults


def _false_alarms(work: Path, assets: Path) -> list[Result]:
    """Run every model and precision of above without a fault; return the results that are not ok."""
    results = []
    for name, case in _cases(work, assets).items():
        runtime = "onnxruntime" if name == "digits" else "litert"
        for precision in ("fp32", "fp16", "w8", "w8a8") if name == "digits" else ("fp32", "fp16", "w8"):
            results += case.build(runtime, precision, work).results
    return [result for result in results if result.status != "ok"]


def _outcome(name: str, built: edgewright.BuildResult, expected: str) -> Outcome:
    result = built.results[0]
    return Outcome(
        name=name,
        status=str(result.status),
        exit_code=built.exit_code,
        reason=result.reason,
        expected=expected,
    )


def _overflow(work: Path) -> edgewright.BuildResult:
    """A net with weights above 65,504, the largest float16."""
    import torch

    torch.manual_seed(SEED)
    net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        net[0].weight *= 1e7
        net[2].weight *= 1e-7
    x = np.random.default_rng(SEED).uniform(1, 4, (200, 32)).astype(np.float32)
    return edgewright.build(
        net,
        example_inputs=torch.zeros(1, 32),
        data=x,
        to=("onnxruntime",),
        precision=("fp16",),
        out=tempfile.mkdtemp(dir=work),
    )


def _swapped_outputs(work: Path) -> edgewright.BuildResult:
    import torch

    class TwoHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = (
                torch.nn.Linear(16, 32),
                torch.nn.Linear(32, 4),
                torch.nn.Linear(32, 4),
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = torch.relu(self.body(x))
            return self.a(hidden), self.b(hidden)

    torch.manual_seed(SEED)
    x = np.random.default_rng(SEED).normal(size=(200, 16)).astype(np.float32)
    return edgewright.build(
        TwoHeads(),
        example_inputs=torch.zeros(1, 16),
        data=x,
        to=("faulty:SwappedOutputs",),
        precision=("fp32",),
        out=tempfile.mkdtemp(dir=work),
    )


def _verify(name: str, artifact: Path, case: Case, weights: Path, expected: str) -> Outcome:
    """Run `edgewright verify` as a user would."""
    command = [
        sys.executable,
        "-m",
        "edgewright.cli",
        "verify",
        str(artifact),
        "--against",
        case.model,
        "--json",
    ]
    command += ["--weights", str(weights), "--input-shape", case.shapes[0], "--data", str(case.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    record = json.loads(done.stdout)
    return Outcome(
        name=name,
        status=record.get("status", "failed"),
        exit_code=done.returncode,
        reason=record.get("reason") or record.get("message", ""),
        expected=expected,
    )


def _stale(name: str, digits: Case, work: Path) -> Outcome:
    """The weights were trained on since: the artifact is last week's."""
    import torch
    from safetensors.torch import load_file, save_file

    built = digits.build("onnxruntime", "fp32", work)
    weights = load_file(digits.weights)
    generator = torch.Generator().manual_seed(SEED)
    newer = {
        key: value + 0.1 * value.std() * torch.randn(value.shape, generator=generator)
        if value.dim() > 1
        else value
        for key, value in weights.items()
    }
    save_file(newer, work / "newer.safetensors")
    return _verify(
        name,
        built.out / "artifacts" / "onnxruntime-fp32",
        digits,
        work / "newer.safetensors",
        "differs from the source",
    )


def _changed(name: str, digits: Case, work: Path) -> Outcome:
    """One bit of a weight flipped after the build."""
    built = digits.build("onnxruntime", "fp32", work)
    folder = work / "changed"
    shutil.copytree(built.out / "artifacts" / "onnxruntime-fp32", folder)
    file = folder / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return _verify(name, folder, digits, Path(digits.weights), "changed after")


def _hanging(name: str, digits: Case, work: Path) -> Outcome:
    os.environ["EDGEWRIGHT_TIMEOUT_S"] = "20"
    try:
        return _outcome(name, digits.build("faulty:Hangs", "fp32", work), "did not finish within 20 s")
    finally:
        del os.environ["EDGEWRIGHT_TIMEOUT_S"]


if __name__ == "__main__":
    sys.exit(main())
