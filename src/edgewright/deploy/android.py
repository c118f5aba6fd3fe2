"""Bundles for Android: a Gradle project around LiteRT or ONNX Runtime, the processing in C reached through JNI."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError, UnknownNameError, UsageError
from edgewright.core.files import write_text
from edgewright.core.tensors import Array
from edgewright.deploy import golden
from edgewright.deploy.android_classes import measure_runtime
from edgewright.deploy.android_native import ABIS, measure_abis
from edgewright.deploy.android_proof import prove_project
from edgewright.deploy.api import (
    hop,
    input_text,
    is_stream,
    microphone_samples,
    result_text,
    sample_input,
)
from edgewright.deploy.elf import page_problems
from edgewright.deploy.golden import Case, array_file
from edgewright.deploy.names import camel_case, snake_case
from edgewright.deploy.records import Component, Content, Size, Written
from edgewright.deploy.templates import render
from edgewright.deploy.writing import (
    package_licence,
    write_c_core,
    write_cases,
    write_licences,
    write_model,
    write_processing,
)

# Pinned so that each is in the range that the others were tested with. Kotlin 2.4.20: Gradle 7.6.3 to 9.7.0, Android
# plugin 8.5.2 to 9.3.1 (kotlinlang.org/docs/gradle-configure-project.html); that plugin: Gradle 9.5.0 at least, and
# compileSdk 37 at most (developer.android.com/build/releases/gradle-plugin). No Maven repository was asked.
VERSIONS: Mapping[str, str] = {
    "gradle": "9.6.0", "agp": "9.3.1", "kotlin": "2.4.20", "ndk": "28.2.13676358", "cmake": "3.22.1",
    "compile_sdk": "36", "min_sdk": "26", "coroutines": "1.11.0", "litert": "2.3.0", "onnxruntime": "1.31.0",
    "activity": "1.13.0", "lifecycle": "2.9.4", "camerax": "1.6.2", "junit": "4.13.2", "test_ext_junit": "1.3.0",
    "test_runner": "1.7.0",
}  # fmt: skip
# Of gradle-9.6.0-bin.zip, as its publisher gives it (gradle.org/release-checksums).
GRADLE_SHA256 = "bbaeb2fef8710818cf0e261201dab964c572f92b942812df0c3620d62a529a01"
_DEFAULT_ABIS = "arm64-v8a,x86_64"
_CHAINS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "litert": {"auto": ("NPU", "GPU", "CPU"), "npu": ("NPU", "CPU"), "gpu": ("GPU", "CPU"), "cpu": ("CPU",)},
    "onnxruntime": {"auto": ("NPU", "CPU"), "npu": ("NPU", "CPU"), "cpu": ("CPU",)},
}
_TITLES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
_WHEELS = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}
_LITERT_DTYPES = ("float32", "int8", "uint8", "int32", "int64")
_TYPES = {  # of a result: type, reader, name of its test
    "classes": ("List<Label>", "labels", "Labels"),
    "boxes": ("List<Box>", "boxes", "Boxes"),
    "keypoints": ("List<Point>", "points", "Points"),
    "mask": ("Mask", "mask", "Mask"),
    "audio": ("FloatArray", "samples", "Samples"),
    "codes": ("IntArray", "codes", "Codes"),
}
_ARRAYS = {
    "float32": "FloatArray", "int8": "ByteArray", "uint8": "ByteArray", "int16": "ShortArray", "int32": "IntArray",
    "int64": "LongArray",
}  # fmt: skip
_SAMPLES = {
    "camera": "shows the camera and what the model finds",
    "microphone": "listens to the microphone and shows what the model hears",
    "file": "runs the model on the first golden input",
}
_PACKAGE = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){1,7}")
# Words that no part of a package's name may be: Java's, and the hard ones of Kotlin.
_WORDS = frozenset(
    "as fun in is object typealias typeof val var when abstract assert boolean break byte case catch char class "
    "const continue default do double else enum extends final finally float for goto if implements import "
    "instanceof int interface long native new package private protected public return short static strictfp super "
    "switch synchronized this throw throws transient try void volatile while true false null".split()
)
# Types of the project, and those of Kotlin and Android that its files name.
_TAKEN = frozenset(
    "Accelerator AcceleratorException AcceleratorReport ArrayList AtomicBoolean Attempt Bitmap Boolean Box "
    "BuildConfig Bundle Byte ByteArray ByteBuffer Closeable Comparable Context DType Double Engine Enum Exception "
    "Executors File FloatArray Golden GoldenArray GoldenCase GoldenTest HashMap IllegalArgumentException Image "
    "IntArray Label LinkageError Log Long LongArray MainActivity Manifest Mask Math Open OpenedModels Pair "
    "PixelFormat Point Processing ProcessingException R RecordedModel ResultArray Results SelfTest Short "
    "ShortArray Suppress System Tensor TextView Thread ThreadFactory Throwable Triple Values".split()
)


class AndroidPlatform:
    """A Gradle project: a library with a Kotlin API, a sample app, the golden test for devices."""

    name = "android"
    summary = "Gradle project with a Kotlin API, with LiteRT or ONNX Runtime"
    runtimes: tuple[str, ...] = ("litert", "onnxruntime")
    options: Mapping[str, str] = {
        "package": "of the Kotlin code, default com.example.NAME",
        "abis": f"of {', '.join(ABIS)}, default {_DEFAULT_ABIS}",
        "accelerator": "what is tried first: npu, gpu, cpu, or auto for all of them in this order; default auto",
    }

    def write(self, content: Content, folder: Path) -> Written:
        """Write the project; see `Platform.write`."""
        values = _values(content)
        module, package = snake_case(content.name), str(values["package"])
        home = folder / "library" / "src"
        core = write_c_core(content, home / "main" / "cpp" / "core")
        values["core_sources"] = [path.name for path in core.sources]
        write_model(content, home / "main" / "assets" / module)
        write_processing(content, folder / "processing")
        write_cases(content, home / "androidTest" / "assets" / "golden")
        for file, template in _files(content, values, package).items():
            write_text(folder / file, render(f"android/{template}.j2", values))
        sizes = _sizes(content, folder)
        write_text(folder / "README.md", render("android/README.md.j2", values | {"sizes": sizes}))
        if values["sample"] == "file":
            for array in _arrays(0, "inputs", content.cases[0].raw):
                sample = folder / "app" / "src" / "main" / "assets" / "sample" / str(array["file"])
                sample.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(home / "androidTest" / "assets" / "golden" / str(array["file"]), sample)
        wheel = _WHEELS[content.runtime]
        write_licences(folder, {_TITLES[content.runtime]: text} if (text := package_licence(wheel)) else {})
        return Written(
            places={
                "model": f"library/src/main/assets/{module}",
                "processing": "processing",
                "golden": "library/src/androidTest/assets/golden",
            },
            components=_components(content, str(values["sample"])),
            sizes=sizes,
            notes=(
                "the versions in gradle/libs.versions.toml are pinned, but were not resolved here: no Maven repository "
                "was asked",
            ),
        )

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Compile the API, run it on a JVM over the JNI library, check what needs Android; see `Platform.prove`."""
        return prove_project(
            folder,
            package_of(content.name, content.options),
            len(content.cases),
            abis=_abis_of(content.options),
            min_sdk=VERSIONS["min_sdk"],
            target_sdk=VERSIONS["compile_sdk"],
        )

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return what is wrong with the pages of the libraries in `folder`, those of a build's .aar and .apk too."""
        count, problems = page_problems(folder)
        return {f"pages of 16 KB in {count} 64-bit libraries": problems}


PLATFORM = AndroidPlatform()


def package_of(name: str, options: Mapping[str, str]) -> str:
    """Return the package of the Kotlin code.

    Raises:
        UsageError: it is none, or holds a word of Kotlin or Java.
    """
    own = name.lower()
    package = options.get("package", f"com.example.{own}model" if own in _WORDS else f"com.example.{own}")
    if not _PACKAGE.fullmatch(package):
        raise UsageError(
            f"option package is {package!r:.120}; 2 to 8 names of small letters, digits and _ with dots between them "
            "are expected, such as com.example.birds."
        )
    word = next((part for part in package.split(".") if part in _WORDS), None)
    if word is not None:
        raise UsageError(
            f"option package is {package!r}, but {word!r} is a word of Kotlin or Java. Choose another."
        )
    return package


def _abis_of(options: Mapping[str, str]) -> list[str]:
    abis = [part.strip() for part in options.get("abis", _DEFAULT_ABIS).split(",")]
    for abi in abis:
        if abi not in ABIS:
            raise UnknownNameError.of("ABI of Android", abi, ABIS)
    return list(dict.fromkeys(abis))


def _chain_of(runtime: str, options: Mapping[str, str]) -> tuple[str, ...]:
    chains = _CHAINS[runtime]
    wanted = options.get("accelerator", "auto")
    if wanted not in chains:
        raise UnknownNameError.of(f"accelerator of {_TITLES[runtime]} on Android", wanted, chains)
    return chains[wanted]


def _values(content: Content) -> dict[str, object]:
    if content.name in _TAKEN:
        raise UsageError(
            f"bundle name {content.name!r} is that of a type which the Android project uses itself. Choose another."
        )
    package, chain = package_of(content.name, content.options), _chain_of(content.runtime, content.options)
    inputs, results = _inputs(content), _results(content)
    module = snake_case(content.name)
    sample = sample_input(content) or "file"
    return {
        "name": content.name,
        "version": content.version,
        "module": module,
        "library": f"{module}_processing",
        "package": package,
        "class_path": package.replace(".", "/"),
        "runtime": content.runtime,
        "runtime_title": f"{_TITLES[content.runtime]} {VERSIONS[content.runtime]}",
        "versions": dict(VERSIONS),
        "gradle_sha256": GRADLE_SHA256,
        "abis": _abis_of(content.options),
        "chain": chain,
        "models": _models(content, module),
        "inputs": inputs,
        "results": results,
        "readers": {str(row["reader"]) for row in results},
        "flats": {str(row["flat"]) for row in results},
        "parameters": ", ".join(f"{row['field']}: {row['type']}" for row in inputs),
        "arguments": ", ".join(str(row["field"]) for row in inputs),
        "has_image": any(row["kind"] == "image" for row in inputs),
        "hop": hop(content),
        "cases": [_case(content, number, case) for number, case in enumerate(content.cases)],
        "tolerances": {
            "tensor": golden.TENSOR_TOLERANCE, "tensor_steps": golden.TENSOR_STEPS, "score": golden.SCORE_TOLERANCE,
            "box": golden.BOX_TOLERANCE, "mask_agreement": golden.MASK_AGREEMENT, "value": golden.VALUE_TOLERANCE,
        },
        "sample": sample,
        "sample_text": _SAMPLES[sample],
        "sample_inputs": _sample_inputs(content, inputs),
        "rate_hz": content.plan.specification.inputs[0].rate_hz or 16_000,
        "samples": microphone_samples(content),
    }  # fmt: skip


def _inputs(content: Content) -> list[dict[str, str]]:
    fields = _fields([row.name for row in content.plan.specification.inputs])
    inputs = []
    for row, field in zip(content.plan.specification.inputs, fields, strict=True):
        made = content.plan.types[row.name]
        if row.kind == "text":
            raise UsageError("a text is no input of an Android bundle: the C core has no tokenizer.")
        inputs.append(
            {
                "field": field,
                "kind": row.kind,
                "order": made.order,
                "type": "Image" if row.kind == "image" else _ARRAYS[made.dtype],
                "dtype": made.dtype,
                "text": input_text(made, is_stream=is_stream(content)),
            }
        )
    return inputs


def _results(content: Content) -> list[dict[str, str]]:
    flows = content.plan.specification.results
    results = []
    for flow, field in zip(flows, _fields([flow.name for flow in flows]), strict=True):
        made = content.plan.results[flow.name]
        kind, reader, flat = _TYPES.get(made.kind, ("Values", "values", "Values"))
        text = result_text(made)
        results.append(
            {"field": field, "type": kind, "reader": reader, "flat": flat, "kind": made.kind, "text": text}
        )
    return results


def _fields(names: Sequence[str]) -> list[str]:
    """Return names of Kotlin, each once: face_boxes and faceBoxes would both be faceBoxes."""
    made: list[str] = []
    for name in names:
        field = wanted = camel_case(name, "kotlin")
        number = 2
        while field in made:
            field, number = f"{wanted}{number}", number + 1
        made.append(field)
    return made


def _models(content: Content, module: str) -> list[dict[str, object]]:
    suffix = ".tflite" if content.runtime == "litert" else ".onnx"
    files = [name for name in content.model_files() if name.endswith(suffix)]
    models: list[dict[str, object]] = []
    for file, signature in zip(files, content.plan.signatures.values(), strict=True):
        for spec in (*signature.inputs, *signature.outputs):
            if content.runtime == "litert" and spec.dtype not in _LITERT_DTYPES:
                raise ConversionError(
                    f"tensor {spec.name!r:.80} of {file} is {spec.dtype}, which LiteRT's Kotlin API does not take "
                    f"({', '.join(_LITERT_DTYPES)}). Convert the model for onnxruntime."
                )
        inputs, outputs = (
            [{"name": s.name, "shape": [size or 1 for size in s.shape], "dtype": s.dtype} for s in specs]
            for specs in (signature.inputs, signature.outputs)
        )
        models.append({"asset": f"{module}/{file}", "inputs": inputs, "outputs": outputs})
    return models


def _case(content: Content, number: int, case: Case) -> dict[str, object]:
    first = next(iter(content.plan.signatures.values())).inputs
    index = {spec.name: place for place, spec in enumerate(first)}
    tensors = _arrays(number, "tensors", case.tensors)
    samples = hop(content)
    return {
        "name": case.name,
        "inputs": _arrays(number, "inputs", case.raw),
        "tensors": [array | {"index": index[str(array["name"])]} for array in tensors],
        "results": _arrays(number, "results", case.results),
        "outputs": _outputs(content, number, case),
        "runs": next(iter(case.raw.values())).size // samples if samples else 1,
        "side": max((max(array.shape[:2]) for array in case.raw.values() if array.ndim == 3), default=1),
    }


def _outputs(content: Content, number: int, case: Case) -> list[list[str]]:
    """Return the files of what the models gave, a list for each model, in the order of its outputs."""
    files = {str(array["name"]): str(array["file"]) for array in _arrays(number, "outputs", case.outputs)}
    return [
        [files[f"{model}.{spec.name}" if model else spec.name] for spec in signature.outputs]
        for model, signature in content.plan.signatures.items()
    ]


def _arrays(number: int, group: str, arrays: Mapping[str, Array]) -> list[dict[str, object]]:
    return [
        {
            "file": array_file(number, group, index),
            "name": name,
            "dtype": str(array.dtype),
            "shape": list(array.shape),
        }
        for index, (name, array) in enumerate(arrays.items())
    ]


def _sample_inputs(content: Content, inputs: Sequence[Mapping[str, str]]) -> str:
    """Return the arguments of `run` that the file sample gives: the first golden case."""
    texts = []
    for array, row in zip(_arrays(0, "inputs", content.cases[0].raw), inputs, strict=True):
        read, shape = f'bytes("{array["file"]}")', array["shape"]
        assert isinstance(shape, list)
        if row["kind"] == "image":
            texts.append(f"Image.packed({read}, {shape[1]}, {shape[0]}, PixelFormat.{row['order'].upper()})")
        elif row["type"] == "ByteArray":
            texts.append(read)
        else:
            word = row["type"].removesuffix("Array")
            fill = f"order(ByteOrder.LITTLE_ENDIAN).as{word}Buffer().get(it)"
            texts.append(f"{row['type']}({math.prod(shape)}).also {{ ByteBuffer.wrap({read}).{fill} }}")
    return ", ".join(texts)


def _files(content: Content, values: Mapping[str, object], package: str) -> dict[str, str]:
    place = package.replace(".", "/")
    main, test = f"library/src/main/kotlin/{place}", f"library/src/androidTest/kotlin/{place}"
    return {
        ".gitignore": "gitignore",
        "settings.gradle.kts": "settings.gradle.kts",
        "build.gradle.kts": "build.gradle.kts",
        "gradle.properties": "gradle.properties",
        "gradle/libs.versions.toml": "libs.versions.toml",
        "gradle/wrapper/gradle-wrapper.properties": "gradle-wrapper.properties",
        "library/build.gradle.kts": "library.gradle.kts",
        "library/consumer-rules.pro": "consumer-rules.pro",
        "library/src/main/AndroidManifest.xml": "LibraryManifest.xml",
        "library/src/main/cpp/CMakeLists.txt": "CMakeLists.txt",
        "library/src/main/cpp/jni.c": "jni.c",
        f"{main}/{content.name}.kt": "Api.kt",
        f"{main}/Values.kt": "Values.kt",
        f"{main}/Open.kt": "Android.kt",
        f"{main}/core/Processing.kt": "Processing.kt",
        f"{main}/core/Engine.kt": "Engine.kt",
        f"{main}/core/Runtime.kt": f"runtime_{content.runtime}.kt",
        f"{test}/Golden.kt": "Golden.kt",
        f"{test}/GoldenTest.kt": "GoldenTest.kt",
        "jvm/SelfTest.kt": "SelfTest.kt",
        "app/build.gradle.kts": "app.gradle.kts",
        "app/src/main/AndroidManifest.xml": "AndroidManifest.xml",
        f"app/src/main/kotlin/{place}/app/MainActivity.kt": f"main_{values['sample']}.kt",
    }


def _components(content: Content, sample: str) -> tuple[Component, ...]:
    wanted = [("org.jetbrains.kotlinx", "kotlinx-coroutines-android", "coroutines", "Apache-2.0")]
    if content.runtime == "litert":
        wanted.append(("com.google.ai.edge.litert", "litert", "litert", "Apache-2.0"))
        if "GPU" in _chain_of("litert", content.options):
            wanted.append(("com.google.ai.edge.litert", "litert-gpu", "litert", "Apache-2.0"))
    else:
        wanted.append(("com.microsoft.onnxruntime", "onnxruntime-android", "onnxruntime", "MIT"))
    wanted += [
        ("androidx.activity", "activity", "activity", "Apache-2.0"),
        ("androidx.lifecycle", "lifecycle-runtime-ktx", "lifecycle", "Apache-2.0"),
    ]
    if sample == "camera":
        names = ("camera-camera2", "camera-lifecycle", "camera-view")
        wanted += [("androidx.camera", name, "camerax", "Apache-2.0") for name in names]
    return tuple(
        Component(
            name=name,
            version=VERSIONS[version],
            purl=f"pkg:maven/{group}/{name}@{VERSIONS[version]}",
            licence=licence,
        )
        for group, name, version, licence in wanted
    )


def _sizes(content: Content, folder: Path) -> tuple[Size, ...]:
    sizes = []
    for abi, core_bytes in measure_abis(folder, _abis_of(content.options)).items():
        runtime = measure_runtime(content.runtime, abi)
        whose = (
            f"the libraries of {runtime[1]}" if runtime else "the runtime's .aar is not here to be measured"
        )
        sizes.append(
            Size(
                abi=abi,
                model_bytes=content.model_bytes,
                runtime_bytes=runtime[0] if runtime else None,
                core_bytes=core_bytes,
                note=f"{whose}; the JNI library is by clang without the NDK",
            )
        )
    return tuple(sizes)
