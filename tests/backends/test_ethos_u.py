"""Ethos-U: Vela really compiles, what it says is read, and what stays on the CPU is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.backends import programs
from tests.generated_litert import made_model, rename

from edgewright.backends import registry
from edgewright.backends.ethos_u import PACKAGE, TOOLCHAIN, EthosU55x128, EthosUBackend, _check_integers
from edgewright.backends.vela_report import CpuOperator, read_report, shown
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.errors import (
    ConversionError,
    IntegrityError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from edgewright.core.target import Precision, Target
from edgewright.recipe import Recipe
from edgewright.sources.load import load
from edgewright.testing import check_backend
from edgewright.workers import environments

pytestmark = pytest.mark.toolchain("ai_edge_litert", "ai_edge_quantizer", "litert_torch", "torch")
BACKEND = EthosU55x128()
KWS = "models/mlperf-tiny/kws_dscnn_int8.tflite"
OWN_CONFIG = """
[System_Config.Own]
core_clock=250e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
Sram_max_reads=4
Sram_max_writes=4
OffChipFlash_clock_scale=0.25
OffChipFlash_burst_length=128
OffChipFlash_read_latency=64
OffChipFlash_write_latency=0
OffChipFlash_max_reads=2
OffChipFlash_max_writes=0

[Memory_Mode.Own]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0
"""


@pytest.fixture
def vela() -> None:
    if not environments.is_installed(TOOLCHAIN):
        pytest.skip(f"needs Vela; run: edgewright toolchain install {TOOLCHAIN}")


def convert(model: Path, folder: Path, *options: str, backend: EthosUBackend = BACKEND) -> Artifact:
    target = Target(
        runtime=backend.name,
        precision=Precision.W8A8,
        options=backend.settle_options(options) if options else (),
    )
    return backend.convert(load(str(model), workdir=folder / "source"), target, None, folder / "out")


def log_softmax(folder: Path, name: str = "t4") -> Path:
    """Write a convolution, which an NPU runs, and a log-softmax, which it does not."""
    import numpy as np

    maker = made_model()
    given = maker.tensor((1, 4, 4, 8), scale=0.1)
    weights = maker.tensor((8, 3, 3, 8), scale=0.02, value=np.ones((8, 3, 3, 8)))
    bias = maker.tensor((8,), "int32", scale=0.002, value=np.zeros(8))
    middle, result = (
        maker.tensor((1, 4, 4, 8), scale=0.1),
        maker.tensor((1, 4, 4, 8), scale=16 / 256, zero=127),
    )
    window = {"padding": 0, "strideW": 1, "strideH": 1}
    maker.operator(
        "CONV_2D", [given, weights, bias], [middle], table="Conv2DOptions", options=window, version=3
    )
    maker.operator("LOG_SOFTMAX", [middle], [result], table="LogSoftmaxOptions", version=2)
    rename(maker, result, name)
    return maker.write(folder / "scores, of two.tflite", [given], [result])


def test_a_model_is_compiled_and_called_no_more_than_that(assets: Path, tmp_path: Path, vela: None) -> None:
    artifact = convert(assets / KWS, tmp_path)
    assert [file.name for file in artifact.files] == ["model_vela.tflite", "summary.csv", "per-layer.csv"]
    assert artifact.proof is Proof.CONVERTED and artifact.toolchain[PACKAGE]
    notes = "\n".join(artifact.notes)
    assert "(Ethos_U55_High_End_Embedded, Shared_Sram, Arm/vela.ini), not run here" in notes
    assert "the compiler's estimate: 0.1798 ms, SRAM 21.7 KiB, off-chip flash 30.4 KiB" in notes
    assert "0 on the CPU" in notes
    notes = load(str(artifact.path), workdir=tmp_path / "again").notes
    assert notes[0] == "1 custom operators 'ethos-u'"
    assert (
        notes[1].startswith("compiled for an Arm Ethos-U: commands 3,")
        and "constants 31,104 bytes" in notes[1]
    )
    assert notes[2] == "no operator stays on the CPU"
    with pytest.raises(UnavailableError, match="there is none here"):
        BACKEND.open(artifact, artifact.target)


def test_a_model_that_litert_itself_refuses_is_compiled(assets: Path, tmp_path: Path, vela: None) -> None:
    artifact = convert(assets / "models/tflite-micro/person_detect.tflite", tmp_path)
    assert any(", 0 on the CPU" in note for note in artifact.notes)


@pytest.mark.slow
def test_it_conforms(assets: Path, tmp_path: Path, vela: None) -> None:
    sources = [
        load(str(assets / "models/tflite-micro/micro_speech_quantized.tflite"), workdir=tmp_path / "source"),
        programs.cnn_pt2(tmp_path / "pt2"),
    ]
    report = check_backend(
        BACKEND,
        programs=sources,
        calibrations={str(one.path): programs.calibration_for(one, tmp_path) for one in sources[1:]},
        workdir=tmp_path / "work",
    )
    assert {pair.program for pair in report.converted} == {one.path.name for one in sources}
    assert {pair.proof for pair in report.converted} == {Proof.CONVERTED}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in registry.names() if name.startswith("ethos-u")])
def test_every_configuration_compiles_by_its_defaults(
    assets: Path, tmp_path: Path, vela: None, name: str
) -> None:
    backend = registry.get(name)
    assert isinstance(backend, EthosUBackend)
    artifact = convert(assets / KWS, tmp_path, backend=backend)
    assert any(f"for {name} (Ethos_{backend.family.upper()}" in note for note in artifact.notes)


def test_an_operator_on_the_cpu_is_refused_with_vela_s_reason(tmp_path: Path, vela: None) -> None:
    said = r"1 operators of .* stay on the CPU: LOG_SOFTMAX 't4' \(Unsupported opType\).*cpu_operators=allow"
    with pytest.raises(ConversionError, match=said):
        convert(log_softmax(tmp_path), tmp_path)
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def test_it_is_allowed_by_an_option_and_then_told(tmp_path: Path, vela: None) -> None:
    artifact = convert(log_softmax(tmp_path), tmp_path, "cpu_operators=allow")
    assert any("1 on the CPU, as Vela lists them" in note for note in artifact.notes)
    assert "on the CPU: LOG_SOFTMAX 't4' (Unsupported opType)" in artifact.notes
    assert any(note.startswith("the compiler's estimate of the part on the NPU: ") for note in artifact.notes)


@pytest.mark.parametrize("name", ["a, b", 'x"y', "one\nConv2D,Conv2D,CPU,0", "' ofm: '"])
def test_names_of_the_model_do_not_disturb_the_reading(tmp_path: Path, vela: None, name: str) -> None:
    artifact = convert(log_softmax(tmp_path, name), tmp_path, "cpu_operators=allow")
    shown_name = repr(name.replace("\n", "_"))
    assert f"on the CPU: LOG_SOFTMAX {shown_name} (Unsupported opType)" in artifact.notes


def test_a_model_without_npu_operators_is_no_success(tmp_path: Path, vela: None) -> None:
    maker = made_model()
    given, result = maker.tensor((1, 8), scale=0.1), maker.tensor((1, 8), scale=16 / 256, zero=127)
    maker.operator("LOG_SOFTMAX", [given], [result], table="LogSoftmaxOptions", version=2)
    model = maker.write(tmp_path / "alone.tflite", [given], [result])
    with pytest.raises(ConversionError, match=r"puts no operator of alone\.tflite on the NPU"):
        convert(model, tmp_path, "cpu_operators=allow")


def test_float_models_are_refused_before_vela_sees_them(assets: Path, tmp_path: Path) -> None:
    model = assets / "models/tflite-micro/hello_world_float.tflite"
    program = load(str(model), workdir=tmp_path)
    assert "computes in integers" in str(BACKEND.refuses(program, Target(runtime=BACKEND.name)))
    # Vela itself ends with 0 on it, and puts nothing on the NPU.
    with pytest.raises(ConversionError, match="float activations alone"):
        _check_integers(model, program)


def test_a_configuration_of_ones_own_is_used_and_watched(assets: Path, tmp_path: Path, vela: None) -> None:
    config = tmp_path / "own.ini"
    config.write_text(OWN_CONFIG)
    options = BACKEND.settle_options([f"config={config}", "system_config=Own", "memory_mode=Own"])
    assert any(option.startswith("config_sha256=") for option in options)
    artifact = convert(assets / KWS, tmp_path, *options)
    assert any("(Own, Own, own.ini)" in note for note in artifact.notes)
    config.write_text(OWN_CONFIG.replace("250e6", "251e6"))
    with pytest.raises(IntegrityError, match="has changed since it was chosen"):
        convert(assets / KWS, tmp_path / "again", *options)


@pytest.mark.parametrize(
    ("option", "error", "said"),
    [
        ("memory_mod=Sram_Only", UnknownNameError, "Did you mean 'memory_mode'"),
        ("memory_mode=Dedicated_Sram", UsageError, "has Sram_Only, Shared_Sram for it"),
        ("system_config=Ethos_U65_High_End", UsageError, "Arm's configuration has Ethos_U55"),
        ("system_config=a;b", UsageError, "expected the name of a section"),
        ("optimise=Speed", UsageError, "Performance or Size is expected"),
        ("arena_cache_size=-1", UsageError, "expected 0.."),
        ("config=/nowhere/vela.ini", UsageError, "cannot be read"),
    ],
)
def test_bad_options_are_named(option: str, error: type[UsageError], said: str) -> None:
    with pytest.raises(error, match=said):
        BACKEND.settle_options([option])


def test_a_recipe_hands_options_to_their_runtime(tmp_path: Path) -> None:
    names = ("ethos-u55-128", "litert")
    options = ("ethos-u55-128.memory_mode=Sram_Only",)
    recipe = Recipe(model="m", runtimes=names, precisions=("w8a8",), options=options)
    npu, other = recipe.targets()
    assert "memory_mode=Sram_Only" in npu.options and "optimise=Performance" in npu.options
    assert other.options == () and "options" not in other.to_json()
    assert Target.from_json(npu.to_json()) == npu
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
    one = Recipe(model="m", runtimes=names[:1], precisions=("w8a8",), options=("optimise=Size",))
    assert "optimise=Size" in one.targets()[0].options
    for wrong, said in (
        ("memory_mode=Sram_Only", "is not RUNTIME.NAME=VALUE"),
        ("litert.speed=1", "litert has no options"),
        ("c.board=x", "which is not among"),
    ):
        with pytest.raises(UsageError, match=said):
            Recipe(model="m", runtimes=names, precisions=("w8a8",), options=(wrong,))


def test_without_vela_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path))
    support = BACKEND.probe()
    assert not support.is_available and "edgewright toolchain install vela" in support.reason


def test_reports_that_contradict_one_another_are_refused(assets: Path, tmp_path: Path, vela: None) -> None:
    artifact = convert(assets / KWS, tmp_path)
    compiled, summary, per_layer = artifact.files
    log = tmp_path / "log.txt"
    log.write_text("")
    assert read_report(compiled, summary, per_layer, log).cpu_operators == ()
    text = per_layer.read_text()
    per_layer.write_text(text.replace("Conv2D,NPU,", "Conv2D,CPU,", 1))
    with pytest.raises(
        ConversionError, match="lists 1 operators on the CPU, but the model that it wrote holds 0"
    ):
        read_report(compiled, summary, per_layer, log)
    per_layer.write_text(text)
    figures = summary.read_text()
    summary.write_text(figures.replace(",21.671875,", ",nan,"))
    with pytest.raises(ConversionError, match="gives 'sram_memory_used' as nan"):
        read_report(compiled, summary, per_layer, log)
    summary.write_text(figures)
    per_layer.write_text(text.replace("Target", "Place", 1))
    with pytest.raises(ConversionError, match="other columns"):
        read_report(compiled, summary, per_layer, log)
    per_layer.unlink()
    with pytest.raises(ConversionError, match=r"no usable per-layer\.csv"):
        read_report(compiled, summary, per_layer, log)


def test_many_operators_are_counted_by_kind() -> None:
    many = tuple(CpuOperator(operator="CAST", name=f"c{i}", reason="") for i in range(20))
    assert shown(many, limit=2) == "CAST 'c0'; CAST 'c1'; and 18 more (in all 20 CAST)"
