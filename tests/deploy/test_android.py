"""Android bundles: complete, refused where a name or an option is wrong, and run on a JVM over their JNI library."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.colour_model import LABELS, SIZE, colour_specification, write_colour_model

from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import TensorSpec
from edgewright.deploy import android_native, android_proof, kotlin
from edgewright.deploy.android import AndroidPlatform, package_of
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.processing.c_code import write_core
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import Specification, write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# A JVM is started: what a bundle is called must not matter to it.
PACKAGE = "com.example.birds_1.it"
HOSTILE_LABELS = ("rot", "grün \N{PARROT}", '"; ${fail()} */')


def hostile_specification(order: str = "rgb") -> Specification:
    """Return the colours' specification with names that are words of Kotlin, or of the API's own code."""
    made = colour_specification(order)
    return replace(
        made,
        inputs=(replace(made.inputs[0], name="read"),),
        tensors=(replace(made.tensors[0], sources=("read",)),),
        results=(
            replace(made.results[0], name="class", labels=HOSTILE_LABELS, labels_file="hostile.txt"),
            replace(made.results[0], name="top_colours"),
            replace(made.results[0], name="topColours"),
        ),
    )


def make(source: Path, out: Path, name: str = "ColourFinder", **changed: object) -> Bundle:
    """Make a bundle without proving it."""
    request = BundleRequest(source=source, platform="android", name=name, licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AndroidPlatform, "prove", lambda self, content, folder: ())
        # No compiler is asked for the library's size: that is a matter of test_android_native.
        patch.setattr(android_native, "unbuildable_for_android", lambda: "left out")
        return make_bundle(replace(request, **changed), out)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model with a processing of hostile names beside it."""
    folder = tmp_path_factory.mktemp("colours")
    write_specification(hostile_specification(), folder)
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The project, neither compiled nor run."""
    options = (f"package={PACKAGE}", "abis=arm64-v8a")
    return make(model, tmp_path_factory.mktemp("bundle") / "colours", options=options)


def texts(folder: Path, suffix: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob(f"*{suffix}")}


def test_the_project_is_complete_and_checks(bundle: Bundle) -> None:
    source = "library/src/main/kotlin/com/example/birds_1/it"
    names = ("settings.gradle.kts", "gradle/libs.versions.toml", "app/build.gradle.kts", "jvm/SelfTest.kt",
                 f"{source}/ColourFinder.kt", f"{source}/core/Processing.kt", "library/consumer-rules.pro",
                 "library/src/main/assets/colour_finder/colours.onnx", "library/src/main/cpp/core/ew_api.c",
                 "library/src/androidTest/assets/golden/golden.json", "README.md",
             "LICENSES/edgewright.txt")  # fmt: skip
    for name in names:
        assert (bundle.folder / name).is_file(), name
    found = check_bundle(bundle.folder)
    assert found.exit_code == 0
    assert "pages of 16 KB in 0 64-bit libraries" in [row.what for row in found.rows]


def test_every_version_is_pinned(bundle: Bundle) -> None:
    catalog = tomllib.loads((bundle.folder / "gradle/libs.versions.toml").read_text())
    assert all(text.replace(".", "").isdigit() for text in catalog["versions"].values())
    entries = [*catalog["libraries"].values(), *catalog["plugins"].values()]
    assert {entry["version"]["ref"] for entry in entries} == set(catalog["versions"])
    bom = json.loads((bundle.folder / "bom.json").read_text())
    purls = {part.get("purl", "").split("@")[0] for part in bom["components"]}
    assert "pkg:maven/com.microsoft.onnxruntime/onnxruntime-android" in purls


def test_names_are_no_words_of_kotlin_and_each_once(bundle: Bundle) -> None:
    values = texts(bundle.folder / "library", ".kt")["Values.kt"]
    for field in ("classValue", "topColours", "topColours2"):
        assert f"val {field}: List<Label>," in values
    api = texts(bundle.folder / "library", ".kt")["ColourFinder.kt"]
    assert f"package {PACKAGE}\n" in api
    assert not any("fail()" in text for text in texts(bundle.folder, ".kt").values())


def test_options_reach_gradle(model: Path, tmp_path: Path) -> None:
    made = make(model, tmp_path / "out", options=("abis=x86,armeabi-v7a,x86", "accelerator=cpu"))
    library = (made.folder / "library/build.gradle.kts").read_text()
    assert 'abiFilters += listOf("x86", "armeabi-v7a")' in library
    opens = texts(made.folder / "library", ".kt")["Open.kt"]
    assert "DEFAULT_CHAIN: List<Accelerator> = listOf(Accelerator.CPU)" in opens
    assert "-Wl,-z,max-page-size=16384" in (made.folder / "library/src/main/cpp/CMakeLists.txt").read_text()


def test_litert_and_a_sample_of_files(assets: Path, tmp_path: Path) -> None:
    gestures = assets / "models/hand-gesture/keypoint_classifier.tflite"
    options = ("abis=x86", "accelerator=gpu")
    made = make(gestures, tmp_path / "out", "Gestures", processing="gesture", options=options)
    assert "implementation(libs.litert.gpu)" in (made.folder / "library/build.gradle.kts").read_text()
    sources = texts(made.folder, ".kt")
    assert "listOf(Accelerator.GPU, Accelerator.CPU)" in sources["Open.kt"]
    assert "opened.run(FloatArray(42)" in sources["MainActivity.kt"]
    assert (made.folder / "app/src/main/assets/sample/0_inputs_0.bin").is_file()
    assert check_bundle(made.folder).exit_code == 0


def test_a_tensor_that_litert_does_not_take_from_kotlin_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"not read before it is refused")
    content = bundle.content
    artifact = replace(
        content.artifacts[""],
        files=(model,),
        target=Target(runtime="litert", precision=Precision.parse("fp32")),
    )
    wide = TensorSpec(name="means", shape=(1, 3), dtype="int16")
    signature = replace(content.plan.signatures[""], outputs=(wide,))
    wrong = replace(content, artifacts={"": artifact}, plan=replace(content.plan, signatures={"": signature}))
    with pytest.raises(ConversionError, match="int16"):
        AndroidPlatform().write(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"options": ("abis=mips",)}, UnknownNameError),
        ({"options": ("abis=",)}, UsageError),
        ({"options": ("accelerator=gpu",)}, UnknownNameError),  # ONNX Runtime has none for Android
        ({"options": ("accelerator=warp",)}, UnknownNameError),
        ({"options": ("package=com.example.fun",)}, UsageError),
        ({"options": ("package=com.example.new",)}, UsageError),
        ({"options": ("package=birds",)}, UsageError),
        ({"options": ('package=com.example"\n}',)}, UsageError),
        ({"options": ("package=com.Example.birds",)}, UsageError),
        ({"options": ("flavour=sweet",)}, UnknownNameError),
        ({"name": "Results"}, UsageError),
        ({"name": "R"}, UsageError),
        ({"name": "birds"}, UsageError),
        ({"name": 'Birds"; }'}, UsageError),
    ],
)
def test_bad_requests_are_refused(
    model: Path, tmp_path: Path, changed: dict[str, object], error: type[EdgewrightError]
) -> None:
    with pytest.raises(error):
        make(model, tmp_path / "out", **changed)
    assert not list(tmp_path.iterdir())


def test_a_default_package_is_never_a_word() -> None:
    assert package_of("Birds", {}) == "com.example.birds"
    assert package_of("Interface", {}) == "com.example.interfacemodel"


@pytest.mark.parametrize(
    "name",
    [
        "library/src/main/assets/colour_finder/colours.onnx",
        "library/src/androidTest/assets/golden/0_results_0.bin",
        "library/src/main/cpp/jni.c",
    ],
)
def test_a_flipped_byte_is_found(bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = check_bundle(folder)
    assert found.exit_code == 6
    assert any(name in problem for row in found.rows for problem in row.problems)


def test_a_library_of_a_build_that_is_laid_out_for_small_pages_is_found(
    bundle: Bundle, tmp_path: Path
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    built = folder / "library/build/intermediates/arm64-v8a"
    built.mkdir(parents=True)
    (tmp_path / "one.c").write_text("int one(void) { return 1; }\n")
    flags = ["-shared", "-fPIC", "-nostdlib", "-Wl,-z,max-page-size=4096"]
    command = ["gcc", *flags, "-o", str(built / "libbird.so"), str(tmp_path / "one.c")]
    subprocess.run(command, check=True)
    rows = {row.what: row.problems for row in check_bundle(folder).rows}
    assert "pages of 4096 bytes" in rows["pages of 16 KB in 1 64-bit libraries"][0]


def test_what_cannot_be_compiled_here_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise UnavailableError("java is missing")

    monkeypatch.setattr(kotlin, "compiler_folder", missing)
    monkeypatch.setattr(android_native, "unbuildable", lambda *tools: "clang is missing")
    proofs = AndroidPlatform().prove(bundle.content, bundle.folder)
    assert proofs[0] == "not compiled here: java is missing"
    assert proofs[-1].startswith("not built here for arm64-v8a: clang is missing")


PROBE = """
package com.example.birds_1.it

import com.example.birds_1.it.core.MODELS
import com.example.birds_1.it.core.ModelRunner
import com.example.birds_1.it.core.OpenedModels
import com.example.birds_1.it.core.Tensor
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.runBlocking
import java.nio.ByteBuffer

/** The colour model in Kotlin: the mean of each plane. */
private class Means : ModelRunner {
    var isClosed = false

    override fun run(inputs: List<Tensor>, outputs: List<Tensor>) {
        val pixels = inputs[0].data.asFloatBuffer()
        val plane = pixels.capacity() / 3
        val means = outputs[0].data.asFloatBuffer()
        for (channel in 0 until 3) {
            means.put(channel, (0 until plane).sumOf { pixels[channel * plane + it].toDouble() }.toFloat() / plane)
        }
    }

    override fun close() {
        isClosed = true
    }
}

private fun plain(red: Int, green: Int, blue: Int, width: Int = 33, height: Int = 21): Image {
    val bytes = ByteArray(width * height * 3) { listOf(red, green, blue)[it % 3].toByte() }
    return Image.packed(bytes, width, height, PixelFormat.RGB)
}

private suspend fun refused(what: String, block: suspend () -> Unit) = try {
    block()
    println("$what: taken")
} catch (error: ProcessingException) {
    println("$what: ${error.code}")
} catch (error: IllegalStateException) {
    println("$what: closed")
}

fun main() = runBlocking {
    val runner = Means()
    val report = AcceleratorReport(
        Accelerator.CPU, listOf(Attempt(Accelerator.NPU, "none is here"), Attempt(Accelerator.CPU, "")),
    )
    val model = ColourFinder.create { OpenedModels(listOf(runner), report) }
    println(model.accelerators)
    println(model.run(plain(9, 250, 9)).classValue[0].name)
    println(model.run(plain(9, 9, 250)).classValue[0].name)
    val colours = listOf(plain(250, 9, 9), plain(9, 250, 9), plain(9, 9, 250))
    val found = coroutineScope {
        (0 until 60).map { async(kotlinx.coroutines.Dispatchers.Default) { model.run(colours[it % 3]) } }.awaitAll()
    }
    println(found.withIndex().all { (index, one) -> one.topColours[0].index == index % 3 })
    val grey = ByteBuffer.allocateDirect(64 * 48 + 2 * (32 * 24))
    for (index in 0 until grey.capacity()) grey.put(index, 127)
    // Android's older ByteBuffer.position returns no ByteBuffer.
    val u = grey.duplicate().apply { position(64 * 48) }.slice()
    val v = grey.duplicate().apply { position(64 * 48 + 32 * 24) }.slice()
    val scores = model.run(Image.yuv(grey, u, v, 64, 48, 64, 32, 1, 90)).classValue.map { it.score }
    println(scores.max() - scores.min() < 0.02)
    refused("short chroma") { model.run(Image.yuv(grey, u, v, 64, 48, 64, 33, 1)) }
    refused("short luma") { model.run(Image.yuv(u, u, v, 64, 48, 64, 32, 1)) }
    refused("no pixels") { model.run(Image.packed(ByteArray(0), 0, 0, PixelFormat.RGB)) }
    refused("too few pixels") { model.run(Image.packed(ByteArray(299), 10, 10, PixelFormat.RGB)) }
    refused("short rows") { model.run(Image.packed(ByteBuffer.allocateDirect(999), 10, 10, PixelFormat.RGB, 29)) }
    refused("negative") { model.run(Image.packed(ByteArray(300), -10, -10, PixelFormat.RGB)) }
    refused("huge") { model.run(Image.packed(ByteArray(300), Int.MAX_VALUE, Int.MAX_VALUE, PixelFormat.RGBA)) }
    refused("rotation") { model.run(Image.packed(ByteArray(300), 10, 10, PixelFormat.RGB, 45)) }
    println(model.run(plain(250, 9, 9, 1, 1)).classValue[0].name)
    model.close()
    model.close()
    refused("after close") { model.run(plain(1, 2, 3)) }
    while (!runner.isClosed) Thread.sleep(1)
    println(MODELS.size)
}
"""


@pytest.fixture(scope="module")
def compiled(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the project with the probe in it, and a folder with its `classes` and, in `jni`, its library."""
    try:
        kotlin.compiler_folder()
    except UnavailableError as err:
        pytest.skip(str(err))
    if missing := android_native.unbuildable("cc"):
        pytest.skip(missing)
    folder, work = tmp_path_factory.mktemp("project") / "copy", tmp_path_factory.mktemp("work")
    shutil.copytree(bundle.folder, folder)
    (folder / "library/src/main/kotlin/com/example/birds_1/it/Probe.kt").write_text(PROBE)
    android_proof.compile_all(folder, PACKAGE, work)
    android_native.build_jni(folder, work / "jni")
    return folder, work


def selftest(folder: Path, work: Path, jni: Path | None = None) -> subprocess.CompletedProcess[str]:
    return android_proof.run_selftest(folder, PACKAGE, work / "classes", jni or work / "jni")


@pytest.mark.slow
def test_the_golden_cases_pass_on_a_jvm(compiled: tuple[Path, Path]) -> None:
    done = selftest(*compiled)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "ok: 2 golden cases\n"
    assert "WARNING" not in done.stderr  # of -Xcheck:jni


@pytest.mark.slow
def test_the_api_names_reports_and_refuses(compiled: tuple[Path, Path]) -> None:
    _, work = compiled
    done = kotlin.run_class(f"{PACKAGE}.ProbeKt", work / "classes", work / "jni", [])
    said = done.stdout.splitlines()
    assert said == [
        "NPU: none is here, CPU: used", HOSTILE_LABELS[1], HOSTILE_LABELS[2], "true", "true", "short chroma: -2",
        "short luma: -2", "no pixels: -2", "too few pixels: -2", "short rows: -2", "negative: -2", "huge: -2",
        "rotation: -7", "rot", "after close: closed", "1",
    ], done.stderr  # fmt: skip
    assert "WARNING" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("group", ["inputs", "tensors", "outputs", "results"])
def test_a_changed_golden_file_fails_its_self_test(
    compiled: tuple[Path, Path], tmp_path: Path, group: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(compiled[0], folder)
    path = folder / f"library/src/androidTest/assets/golden/0_{group}_0.bin"
    content = bytearray(path.read_bytes())
    # Of a float the exponent; of the image, 321x243, a pixel that resizing to 8x8 takes.
    content[(20 * 243 + 15) * 3 if group == "inputs" else 3] ^= 0x40
    path.write_bytes(content)
    failed = selftest(folder, compiled[1])
    assert failed.returncode == 1
    assert "differs by" in failed.stdout


@pytest.mark.slow
def test_a_swapped_colour_order_fails_its_self_test(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(compiled[0], folder)
    signature = Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
        outputs=(TensorSpec(name="means", shape=(1, len(LABELS)), dtype="float32"),),
    )
    core = folder / "library/src/main/cpp/core"
    write_core(plan(hostile_specification("bgr"), signature), core, "colour_finder")
    failed = selftest(folder, compiled[1], android_native.build_jni(folder, tmp_path / "jni"))
    assert failed.returncode == 1
    assert "tensor pixels differs" in failed.stdout


@pytest.mark.slow
def test_the_code_for_litert_and_a_sample_of_files_compile_and_pass(assets: Path, tmp_path: Path) -> None:
    try:
        kotlin.compiler_folder()
    except UnavailableError as err:
        pytest.skip(str(err))
    gestures = assets / "models/hand-gesture/keypoint_classifier.tflite"
    request = BundleRequest(source=gestures, platform="android", name="Gestures", processing="gesture")
    made = make_bundle(request, tmp_path / "out")
    assert "com.google.ai.edge.litert:litert-gpu" in (made.folder / "gradle/libs.versions.toml").read_text()
    assert any("golden cases passed on a desktop JVM" in proof for proof in made.record["proofs"])  # type: ignore[attr-defined]
    assert (made.folder / "app/src/main/assets/sample/0_inputs_0.bin").is_file()
