"""What LiteRT Micro, Vela and the rules of the Edge TPU say of the int8 models of the assets, in one table.

    python benchmarks/microcontrollers/npus.py [--assets DIR] [--npu NAME ...] [--json FILE]

The arena is measured by the interpreter; latency and SRAM of an Ethos-U are the compiler's estimates; the Edge TPU is a
check of documented rules. Toolchains: tflm, vela.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from edgewright.backends import litert_file, registry
from edgewright.backends.edgetpu_rules import check_model
from edgewright.backends.ethos_u import EthosUBackend
from edgewright.backends.tflm_measure import measure_arena
from edgewright.backends.tflm_operators import refusals_of
from edgewright.core.errors import EdgewrightError
from edgewright.core.target import Precision, Target
from edgewright.sources.load import load
from edgewright.sources.tflite_file import read_flatbuffer

MODELS = (
    "mlperf-tiny/kws_dscnn_int8",
    "mlperf-tiny/ic_resnet8_int8",
    "mlperf-tiny/vww_mobilenet_96_int8",
    "tflite-micro/person_detect",
    "tflite-micro/micro_speech_quantized",
    "tflite-micro/trained_lstm_int8",
    "tflite-micro/hello_world_int8",
    "coral/mobilenet_v1_0.25_128_quant",
    "coral/mobilenet_v2_1.0_224_quant",
    "coral/deeplabv3_mnv2_dm05_pascal_quant",
)
NPUS = ("ethos-u55-128", "ethos-u85-256")
_WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model; what refuses it says why instead of a figure."""

    model: str
    arena: str
    npus: dict[str, str]
    edgetpu: str


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--npu", nargs="+", default=list(NPUS), help="of `edgewright doctor`")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in MODELS:
        path = arguments.assets / "models" / f"{name}.tflite"
        npus = {npu: estimate(path, npu) for npu in arguments.npu}
        row = Row(model=path.stem, arena=arena(path), npus=npus, edgetpu=readiness(path))
        rows.append(row)
        print(f"{row.model}\n  LiteRT Micro    {row.arena}")
        for npu, said in npus.items():
            print(f"  {npu:<15} {said}")
        print(f"  Edge TPU rules  {row.edgetpu}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2))


def arena(path: Path) -> str:
    """Return the measured arena, or why there is none."""
    refused = refusals_of(read_flatbuffer(path))
    if refused:
        return f"refused: {refused[0]}"
    try:
        found = measure_arena(path.read_bytes(), what=path.name)
    except EdgewrightError as err:
        return f"refused: {_short(err)}"
    return f"arena {found.total_bytes:,} bytes, of it {found.activation_bytes:,} for tensors"


def estimate(path: Path, npu: str) -> str:
    """Return Vela's estimates, or why the model is refused."""
    backend = registry.get(npu)
    assert isinstance(backend, EthosUBackend), f"{npu} is no Ethos-U"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            program = load(str(path), workdir=work / "source")
            artifact = backend.convert(
                program, Target(runtime=npu, precision=Precision.W8A8), None, work / "out"
            )
        except EdgewrightError as err:
            return f"refused: {_short(err)}"
    (said,) = [note for note in artifact.notes if note.startswith("the compiler's estimate: ")]
    return said.removeprefix("the compiler's ")


def readiness(path: Path) -> str:
    """Return how many operators come before the first that breaks a rule, and which that is."""
    model = litert_file.read(path)
    litert_file.normalise(model)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        litert_file.write(model, made)
        found = check_model(litert_file.read(made), read_flatbuffer(made))
    first = next(iter(found.offending), None)
    why = "" if first is None or first.violation is None else f": {first} {first.violation.reason}"
    return f"{found.mapped} of {len(found.operators)} operators{why}"


def _short(err: EdgewrightError) -> str:
    text = str(err)
    return text if len(text) <= 2 * _WIDTH else f"{text[: 2 * _WIDTH]}..."


if __name__ == "__main__":
    main()
