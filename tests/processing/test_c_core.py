"""The C core itself: formats of pixels, order of calls, hostile sizes, labels, memory, and its self-test."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import both, finishing, needs_compiler, preparing, steps_of

from edgewright.core.errors import ConversionError, DataError, UsageError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.processing.c_code import write_core
from edgewright.processing.c_host import CODES, CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.c_selftest import Generator, write_checks
from edgewright.processing.c_text import c_double, c_float, c_integer, c_string
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.specification import Constant, Flow, RawInput, ResultFlow, Specification, State

pytestmark = needs_compiler
IMAGE = RawInput(name="image", kind="image")
SHRINK = {"step": "resize", "height": 20, "width": 30}
SMOOTH = {"step": "resize", "height": 20, "width": 30, "antialias": True}
TYPES = ("int8", "uint8", "int16", "int32", "int64", "float32")


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> list[CProcessor]:
    """Processings that read single pixels, and rows of them."""
    return [
        both(preparing(IMAGE, [step], (20, 30, 3), "uint8"), tmp_path_factory.mktemp("c"), max_side=200).c
        for step in (SHRINK, SMOOTH)
    ]


def prepared(c: CProcessor, pixels: Array, **options: object) -> Array:
    assert c.set_image(0, pixels, **options) == 0  # type: ignore[arg-type]
    return c.prepare()["x"]


def photograph(height: int, width: int, channels: int = 3) -> Array:
    y, x = np.mgrid[:height, :width]
    planes = [(x * 3 + y * (c + 1) * 2 + c * 40) % 256 for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["rgb", "bgr", "rgba", "bgra", "grey"])
def test_formats_and_rotations_give_the_same_image(
    upright: list[CProcessor], name: str, rotation: int
) -> None:
    wanted = photograph(61, 47)
    if name == "grey":
        wanted = np.repeat(wanted[..., :1], 3, axis=2)
    order = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2, 0], "bgra": [2, 1, 0, 0], "grey": [0]}[
        name
    ]
    # Turned by `rotation` clockwise, what lies in memory is upright.
    stored = np.rot90(wanted, rotation // 90)[..., order]
    padded = np.zeros((stored.shape[0], stored.shape[1] * stored.shape[2] + 5), dtype=np.uint8)
    padded[:, :-5] = stored.reshape(stored.shape[0], -1)
    for c in upright:
        plain = prepared(c, wanted, width=47, height=61)
        made = prepared(
            c, padded, width=stored.shape[1], height=stored.shape[0], row_bytes=padded.shape[1], pixel_format=name,
            rotation=rotation,
        )  # fmt: skip
        assert np.array_equal(made, plain)


def rgb_of(y: Array, u: Array, v: Array, is_video_range: bool) -> Array:
    """ITU-R BT.601 in float64."""
    chroma = [
        np.repeat(np.repeat(p, 2, 0), 2, 1)[: y.shape[0], : y.shape[1]].astype(float) - 128 for p in (u, v)
    ]
    luma = y.astype(float)
    if is_video_range:
        luma, chroma = (luma - 16) * 255 / 219, [c * 255 / 224 for c in chroma]
    red, blue = luma + 1.402 * chroma[1], luma + 1.772 * chroma[0]
    green = luma - 0.344136 * chroma[0] - 0.714136 * chroma[1]
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255)


@pytest.mark.parametrize("is_video_range", [False, True])
@pytest.mark.parametrize("name", ["nv12", "nv21", "i420"])
def test_yuv_is_bt601(tmp_path: Path, name: str, is_video_range: bool) -> None:
    height, width = 23, 31
    c = both(
        preparing(IMAGE, [{"step": "crop", "height": 23, "width": 23}], (23, 23, 3), "uint8"), tmp_path
    ).c
    generator = np.random.default_rng(1)
    y, u, v = (
        generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), (12, 16), (12, 16))
    )
    rows = np.zeros((height, 32), dtype=np.uint8)
    rows[:, :width] = y
    pairs = {"nv12": np.stack([u, v], -1), "nv21": np.stack([v, u], -1), "i420": np.stack([u, v])}[name]
    pixels = np.concatenate([rows.reshape(-1), pairs.reshape(-1)])
    wanted = rgb_of(y, u, v, is_video_range)[:, 4:27]
    for rotation in (0, 90, 180, 270):
        made = prepared(
            c, pixels, width=width, height=height, row_bytes=32, pixel_format=name, rotation=rotation,
            is_video_range=is_video_range,
        )  # fmt: skip
        assert np.abs(made[0] - np.rot90(wanted, -rotation // 90)).max() <= 0.51


def test_transparent_pixels_lie_on_the_background(tmp_path: Path) -> None:
    raw = RawInput(name="image", kind="image", order="rgba")
    rows = [{"step": "channels", "order": "bgr", "background": [10, 200, 30]}, SHRINK]
    pair = both(preparing(raw, rows, (20, 30, 3), "uint8"), tmp_path)
    wanted, made = pair.prepared({"image": photograph(61, 47, 4)})
    assert np.array_equal(wanted, made)


def test_three_planes_of_a_camera_are_i420(upright: list[CProcessor]) -> None:
    generator = np.random.default_rng(2)
    height, width = 61, 47
    y, pairs = (generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((61, 64), (31, 24, 2)))
    rows = np.zeros((61, 48), dtype=np.uint8)
    rows[:, :width] = y[:, :width]
    packed = np.concatenate([rows.reshape(-1), pairs.reshape(-1)])
    for c in upright:
        wanted = prepared(
            c, packed, width=width, height=height, row_bytes=48, pixel_format="nv12", rotation=90
        )
        planes = y.ctypes.data, pairs.ctypes.data, pairs.ctypes.data + 1
        assert c._library.ew_set_yuv(c._memory, 0, *planes, width, height, 64, 48, 2, 0, 90) == 0
        assert np.array_equal(c.prepare()["x"], wanted)
        for bad in ((0, height, 64, 48, 2), (width, height, 46, 48, 2), (width, height, 64, 46, 2),
                    (width, height, 64, 48, 0), (width, height, HIGH, 48, 2), (width, height, 64, LOW, 2)):  # fmt: skip
            assert CODES[c._library.ew_set_yuv(c._memory, 0, *planes, *bad, 0, 0)] == "EW_BAD_SIZE"
        assert (
            CODES[c._library.ew_set_yuv(c._memory, 0, None, *planes[1:], 9, 9, 9, 9, 1, 0, 0)]
            == "EW_BAD_ARGUMENT"
        )


def test_results_stay_until_the_next_run(tmp_path: Path) -> None:
    pair = both(finishing({"y": ((6,), "float32")}, [{"step": "top_k"}]), tmp_path)
    image = photograph(20, 30)
    pair.finished({"image": image}, {"y": np.arange(6, dtype=np.float32)})
    pair.c.set_inputs({"image": image})
    assert pair.c.results()["out"][0].tolist() == [5, 5]
    pair.c.prepare()
    with pytest.raises(DataError, match="EW_BAD_ORDER"):
        pair.c.results()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is installed")
def test_the_headers_are_those_of_cpp_too(tmp_path: Path) -> None:
    core = write_core(preparing(IMAGE, [SHRINK], (20, 30, 3), "uint8"), tmp_path, "pets")
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "pets_processing.h"\nalignas(8) static unsigned char memory[PETS_PROCESSING_BYTES];\n'
        "int main() { return ew_init(pets_processing(), memory, sizeof memory); }\n"
    )
    objects = []
    for path in core.sources:
        objects.append(str(path.with_suffix(".o")))
        subprocess.run(["gcc", "-std=c99", "-c", str(path), "-o", objects[-1]], check=True)
    program = str(tmp_path / "use")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["g++", *flags, "-o", program, str(source), *objects], check=True)
    assert subprocess.run([program], check=False).returncode == 0


LOW, HIGH = -(2**31), 2**31 - 1


@pytest.mark.parametrize(
    ("width", "height", "row_bytes", "number", "rotation", "code"),
    [
        (0, 5, 0, 0, 0, "EW_BAD_SIZE"), (5, 0, 0, 0, 0, "EW_BAD_SIZE"), (-1, 5, 0, 0, 0, "EW_BAD_SIZE"),
        (HIGH, HIGH, 0, 0, 0, "EW_BAD_SIZE"), (LOW, 5, 0, 0, 0, "EW_BAD_SIZE"), (201, 5, 0, 0, 0, "EW_BAD_SIZE"),
        (5, 5, 14, 0, 0, "EW_BAD_SIZE"), (5, 5, -15, 0, 0, "EW_BAD_SIZE"), (5, 5, HIGH, 0, 0, "EW_BAD_SIZE"),
        (5, 5, 0, 8, 0, "EW_UNSUPPORTED"), (5, 5, 0, -1, 0, "EW_UNSUPPORTED"), (5, 5, 0, 256, 0, "EW_UNSUPPORTED"),
        (5, 5, 0, HIGH, 0, "EW_UNSUPPORTED"), (5, 5, 0, 0, 45, "EW_UNSUPPORTED"), (5, 5, 0, 0, LOW, "EW_UNSUPPORTED"),
        (5, 5, HIGH, 5, 0, "EW_BAD_SIZE"),
    ],
)  # fmt: skip
def test_hostile_images_are_answered_with_codes(
    upright: list[CProcessor], width: int, height: int, row_bytes: int, number: int, rotation: int, code: str
) -> None:
    c = upright[0]
    pixels = np.zeros(100, dtype=np.uint8)
    call = c._library.ew_set_image(
        c._memory, 0, pixels.ctypes.data, width, height, row_bytes, number, rotation
    )
    assert CODES[call] == code
    assert CODES[c._library.ew_prepare(c._memory, 0)] == "EW_BAD_ORDER"


def test_calls_out_of_order_and_out_of_range_are_answered_with_codes(upright: list[CProcessor]) -> None:
    c = upright[0]
    lib, memory = c._library, c._memory
    pixels = np.zeros((5, 5, 3), dtype=np.uint8)
    c.reset()
    assert CODES[lib.ew_prepare(memory, 0)] == "EW_BAD_ORDER"
    assert CODES[lib.ew_finish(memory, 0)] == "EW_BAD_ORDER"
    value = ctypes.create_string_buffer(64)
    assert CODES[lib.ew_result(memory, 0, value)] == "EW_BAD_ORDER"
    for bad in (-1, 1, HIGH, LOW):
        assert CODES[lib.ew_set_image(memory, bad, pixels.ctypes.data, 5, 5, 0, 0, 0)] == "EW_BAD_ARGUMENT"
        assert CODES[lib.ew_prepare(memory, bad)] == "EW_BAD_ARGUMENT"
        assert CODES[lib.ew_finish(memory, bad)] == "EW_BAD_ARGUMENT"
        assert CODES[lib.ew_result(memory, bad, value)] == "EW_BAD_ARGUMENT"
        assert lib.ew_input(memory, bad, 0) is None and lib.ew_input(memory, 0, bad) is None
        assert lib.ew_output(memory, bad, 0) is None and lib.ew_output(memory, 0, bad) is None
        assert lib.ew_label(c._what, bad, 0) is None
    assert CODES[lib.ew_set_image(memory, 0, None, 5, 5, 0, 0, 0)] == "EW_BAD_ARGUMENT"
    assert CODES[lib.ew_set_values(memory, 0, pixels.ctypes.data, 75)] == "EW_BAD_ARGUMENT"
    assert CODES[lib.ew_set_samples(memory, 0, pixels.ctypes.data, 75)] == "EW_BAD_ARGUMENT"
    assert CODES[lib.ew_prepare(None, 0)] == "EW_BAD_ARGUMENT"
    zeros = np.zeros(4096, dtype=np.int64)
    assert CODES[lib.ew_prepare(zeros.ctypes.data, 0)] == "EW_BAD_ARGUMENT"
    assert CODES[lib.ew_init(c._what, memory, lib.ew_bytes(c._what) - 1)] == "EW_NO_ROOM"
    assert CODES[lib.ew_init(c._what, memory + 1, 1 << 30)] == "EW_UNALIGNED"
    assert lib.ew_init(c._what, memory, lib.ew_bytes(c._what)) == 0


def test_an_image_that_a_crop_does_not_fit_is_refused(tmp_path: Path) -> None:
    c = both(
        preparing(IMAGE, [{"step": "crop", "height": 20, "width": 30}], (20, 30, 3), "uint8"), tmp_path
    ).c
    with pytest.raises(DataError, match="EW_BAD_SIZE"):
        prepared(c, photograph(19, 47), width=47, height=19)


def test_labels_come_back_whatever_they_hold(tmp_path: Path) -> None:
    labels = ('a"; } #define x', "back\\slash ??/", "größer ✓ 犬", "%s%n", "*/ /* 0123", "\\u0041")
    base = finishing({"y": ((6,), "float32")}, [{"step": "top_k"}])
    result = ResultFlow(
        name="best",
        sources=("y",),
        steps=base.specification.results[0].steps,
        labels=labels,
        labels_file="l.txt",
    )
    specification = Specification(
        task="other", inputs=base.specification.inputs, tensors=base.specification.tensors, results=(result,)
    )
    c = CProcessor(plan(specification, base.signatures), tmp_path, flags=("-std=c99", "-O0"))
    found = [c._library.ew_label(c._what, 0, index) for index in range(7)]
    assert [label.decode() for label in found[:6]] == list(labels) and found[6] is None


def test_constants_and_states_of_two_models(tmp_path: Path) -> None:
    def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
        return TensorSpec(name=name, shape=(1, *shape), dtype=dtype)

    signatures = {
        "first": Signature(inputs=(spec("x", 4), spec("h", 2)), outputs=(spec("y", 4), spec("h_out", 2))),
        "second": Signature(
            inputs=(spec("x", 4), TensorSpec(name="rate", shape=(), dtype="int64")), outputs=(spec("z", 3),)
        ),
    }
    from edgewright.processing.specification import Model

    specification = Specification(
        task="other",
        inputs=(RawInput(name="hop", kind="audio", rate_hz=8000, samples=4),),
        models=(Model(name="first"), Model(name="second")),
        tensors=(
            Flow(name="first.x", sources=("hop",)),
            Flow(name="second.x", sources=("first.y", "hop"), steps=steps_of([{"step": "multiply"}])),
        ),
        constants=(Constant(tensor="second.rate", value=8000),),
        states=(State(tensor="first.h", source="first.h_out", initial=0.5),),
        results=(
            ResultFlow(name="out", sources=("second.z",)),
            ResultFlow(name="hidden", sources=("first.h_out",)),
        ),
    )
    checked = plan(specification, signatures)
    c, reference = CProcessor(checked, tmp_path), Processor(checked)

    def execute(model: str, inputs: dict[str, Array]) -> dict[str, Array]:
        if model == "first":
            return {"y": inputs["x"] + inputs["h"].sum(), "h_out": inputs["h"] + inputs["x"][:, :2]}
        assert int(inputs["rate"]) == 8000
        return {"z": inputs["x"][:, :3] * 2}

    hops = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for _ in range(2):
        for hop in hops:
            wanted, made = reference.run({"hop": hop}, execute), c.run({"hop": hop}, execute)
            assert all(np.array_equal(wanted[name], made[name]) for name in wanted)
        reference.reset()
        c.reset()


def test_what_has_no_c_is_refused_by_name(tmp_path: Path) -> None:
    base = preparing(IMAGE, [SHRINK], (20, 30, 3), "uint8")
    for name in ("1st", "a b", "x;", "", "a" * 49):
        with pytest.raises(UsageError, match="name for C"):
            write_core(base, tmp_path / "none", name)
    open_size = preparing(
        IMAGE, [{"step": "short_side", "size": 30}, {"step": "crop", "fraction": 0.5, "square": True},
                {"step": "resize", "height": 20, "width": 30}], (20, 30, 3), "uint8",
    )  # fmt: skip
    with pytest.raises(ConversionError, match=r"'x', step 2 \(crop\) cannot become C"):
        write_core(open_size, tmp_path / "none", "a")
    with pytest.raises(UsageError, match="max_side"):
        COptions(max_side=0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a", '"a"'),
        ('"', '"\\042"'),
        ("\\", '"\\134"'),
        ("?", '"\\077"'),
        ("é1", '"\\303\\2511"'),
        ("\ud800", '"\\077"'),
    ],
)
def test_strings_of_c(text: str, written: str) -> None:
    assert c_string(text) == written


def test_numbers_of_c() -> None:
    assert c_float(0.1) == "0.100000001f" and c_float(1) == "1.0f" and c_double(-2.5) == "-2.5"
    assert c_integer(-(2**31)) == "(-2147483647 - 1)" and c_integer(7) == "7"
    for value in (float("nan"), float("inf")):
        with pytest.raises(ConversionError):
            c_float(value)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", ["", "-g -fsanitize=address,undefined -fno-sanitize-recover=all"])
def test_make_check_passes_and_finds_a_changed_byte(compiler: str, flags: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None or shutil.which("make") is None:
        pytest.skip(f"{compiler} or make is not installed")
    rows = [SMOOTH, {"step": "layout", "layout": "chw"}]
    core = write_core(preparing(IMAGE, rows, (3, 20, 30), "uint8"), tmp_path, "pets", COptions(max_side=128))
    write_checks(core)
    command = ["make", "-s", "check", f"CC={compiler}", f"CFLAGS=-O1 -Werror {flags}"]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = check()
    assert done.returncode == 0 and "pets: 3 runs, 0 failures, digest" in done.stdout, done.stderr
    source = tmp_path / "pets_processing.c"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("EW_RGB)", "EW_BGR)"), encoding="utf-8")
    assert check().returncode != 0


def test_the_generator_is_the_one_of_the_self_test() -> None:
    made, state = Generator(7).draw(1000), 7
    for number in made.tolist():
        state = (state * 1664525 + 1013904223) % 2**32
        assert number == state
    for dtype in TYPES:
        assert str(Generator(1).array((3, 5), dtype).dtype) == dtype


def test_arrays_of_another_shape_do_not_reach_the_core(tmp_path: Path) -> None:
    pair = both(preparing(IMAGE, [{"step": "resize", "height": 4, "width": 4}], (4, 4, 3), "uint8"), tmp_path)
    for shape, dtype in (
        ((4, 4), "uint8"),
        ((4, 4, 4), "uint8"),
        ((0, 4, 3), "uint8"),
        ((4, 4, 3), "float32"),
    ):
        with pytest.raises(DataError, match=r"but image uint8\[\?, \?, 3\]"):
            pair.c.set_inputs({"image": np.zeros(shape, dtype)})
    with pytest.raises(DataError, match="not given"):
        pair.c.set_inputs({})
