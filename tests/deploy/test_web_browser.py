"""Web bundles in a browser: true to their golden cases, caught when they are not, and live."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.colour_model import colour_specification, plain_image
from tests.deploy.web_site import EVIL, live, needs_chromium, needs_compiler, plain_server

from edgewright.core.tensors import TensorSpec
from edgewright.deploy.browser import FAKE_MEDIA, Browser
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.web import FILES_NAME
from edgewright.deploy.web_proof import prove_page, run_example, run_selftest, serve
from edgewright.processing.c_code import write_core
from edgewright.processing.c_wasm import build_wasm
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import (
    Flow,
    RawInput,
    ResultFlow,
    Specification,
    write_specification,
)

pytestmark = [pytest.mark.slow, needs_compiler, needs_chromium]


def test_it_works_in_a_browser_with_and_without_the_server(web_bundle: Bundle) -> None:
    proofs = prove_page(web_bundle.folder)
    assert "isolated by COOP and COEP: 4 checks" in proofs[0]
    assert "server stopped" in proofs[1]


def test_hostile_labels_stay_text(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser() as browser:
        said = run_example(browser, url)
        assert EVIL in said
        assert browser.evaluate("document.title") == "ColourFinder"
        assert browser.evaluate("document.querySelectorAll('#panel img').length") == 0


def test_the_camera_is_shown_live(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser(flags=FAKE_MEDIA) as browser:
        live(browser, url)


@pytest.mark.parametrize("kind", ["png", "upright by its tag", "grey", "alpha", "16 bits"])
def test_a_picture_file_gives_what_its_pixels_give(web_bundle: Bundle, kind: str) -> None:
    image = plain_image(200, 90, 30)
    image[:7, :, 0] = 10  # its top is another than its other sides
    picture = Image.fromarray(image)
    file = io.BytesIO()
    if kind == "upright by its tag":
        tags = Image.Exif()
        tags[0x0112] = 6  # has to be turned by a quarter clockwise
        picture.transpose(Image.Transpose.ROTATE_90).save(file, "png", exif=tags)
    elif kind == "alpha":
        picture.convert("RGBA").save(file, "png")
    elif kind == "grey":
        picture = picture.convert("L")
        picture.save(file, "png")
    elif kind == "16 bits":
        picture = picture.convert("L")
        Image.fromarray(np.asarray(picture).astype(np.uint16) * 257).save(file, "png")
    else:
        picture.save(file, "png")
    pixels = base64.b64encode(np.asarray(picture.convert("RGB")).tobytes()).decode()
    script = f"""(async () => {{
      const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const {{ ColourFinder }} = await import("./colour_finder.js");
      const model = await ColourFinder.load();
      const file = new Blob([bytes("{base64.b64encode(file.getvalue()).decode()}")], {{ type: "image/png" }});
      const raw = {{ data: bytes("{pixels}"), width: 33, height: 21, format: "rgb" }};
      return [await model.run({{ image: file }}), await model.run({{ image: raw }})];
    }})()"""
    with serve(web_bundle.folder) as url, Browser() as browser:
        browser.open(f"{url}selftest.html")
        made = browser.evaluate(script)
    assert isinstance(made, list)
    assert made[0] == made[1]
    assert made[0]["colours"][0]["name"] == "red"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("data/model/colours.onnx", "data/model/colours.onnx has the digest"),
        ("data/golden/0_results_0.bin", "data/golden/0_results_0.bin has the digest"),
        ("core/processing.wasm", "core/processing.wasm has the digest"),
        ("lib/engine.js", "lib/engine.js has the digest"),
    ],
)
def test_a_flipped_byte_fails_the_self_test(web_copy: Path, name: str, problem: str) -> None:
    content = bytearray((web_copy / name).read_bytes())
    # Of a script a letter of its first comment, so that it still runs.
    content[5 if name.endswith(".js") else len(content) // 2] ^= 1
    (web_copy / name).write_bytes(content)
    with serve(web_copy) as url, Browser() as browser:
        report = run_selftest(browser, url)
    assert any(problem in line for line in report.problems)


def test_a_swapped_colour_order_fails_the_self_test(web_copy: Path, tmp_path: Path) -> None:
    signature = Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 3, 8, 8), dtype="float32"),),
        outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
    )
    core = write_core(plan(colour_specification("bgr"), signature), tmp_path / "core", "colour_finder")
    build_wasm(core, web_copy / "core/processing.wasm")
    files = json.loads((web_copy / FILES_NAME).read_text())
    files["files"]["core/processing.wasm"] = hashlib.sha256(
        (web_copy / "core/processing.wasm").read_bytes()
    ).hexdigest()
    (web_copy / FILES_NAME).write_text(json.dumps(files))
    with serve(web_copy) as url, Browser() as browser:
        report = run_selftest(browser, url)
    assert any("golden case synthetic 0: tensor pixels differs by" in line for line in report.problems)
    assert not any("digest" in line for line in report.problems)


def test_bad_inputs_are_errors_that_a_program_can_catch(web_bundle: Bundle) -> None:
    script = """(async () => {
      const { ColourFinder } = await import("./colour_finder.js");
      const model = await ColourFinder.load();
      const told = (error) => `${error.name}: ${error.message}`;
      const tried = (image) => model.run({ image }).then(() => "ran", told);
      const said = [
        await tried(new Blob(["no image"])),
        await tried({ data: new Uint8Array(5), width: 2, height: 2 }),
        await tried(document.createElement("canvas")),
        await tried(new ImageData(2, 3)),
        await tried(undefined),
      ];
      await model.close();
      return [...said, await tried(new ImageData(2, 3))];
    })()"""
    with serve(web_bundle.folder) as url, Browser() as browser:
        browser.open(f"{url}index.html")
        browser.wait_for("globalThis.app")
        said = browser.evaluate(script)
    assert isinstance(said, list)
    wanted = (
        "no image that this browser reads",
        "has 5 bytes, but 16",
        "ran",
        "ran",
        "input image is missing",
        "closed",
    )
    for text, part in zip(said, wanted, strict=True):
        assert part in text, (text, part)
        assert text == "ran" or text.startswith("ProcessingError: ")


def test_a_server_without_headers_gets_threads_from_the_worker(web_bundle: Bundle) -> None:
    with plain_server(web_bundle.folder) as url, Browser() as browser:
        first, second = run_selftest(browser, url), run_selftest(browser, url)
    assert not first.problems and not second.problems
    assert not first.is_isolated and second.is_isolated


def test_whole_numbers_are_kept_or_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    ends = [
        helper.make_tensor_value_info(name, kind, [1, 2])
        for name, kind in (
            ("x", TensorProto.INT64),
            ("z", TensorProto.INT8),
            ("w", TensorProto.INT64),
            ("v", TensorProto.INT8),
        )
    ]
    nodes = [helper.make_node("Identity", ["x"], ["w"]), helper.make_node("Identity", ["z"], ["v"])]
    graph = helper.make_graph(nodes, "same", ends[:2], ends[2:])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(tmp_path / "same.onnx"),
    )
    # One is a word of JavaScript.
    inputs = (
        RawInput(name="ids", kind="tensor", shape=(2,), dtype="int64"),
        RawInput(name="class", kind="tensor", shape=(2,), dtype="int8"),
    )
    tensors = (Flow(name="x", sources=("ids",)), Flow(name="z", sources=("class",)))
    results = (ResultFlow(name="big", sources=("w",)), ResultFlow(name="small", sources=("v",)))
    write_specification(
        Specification(task="other", inputs=inputs, tensors=tensors, results=results), tmp_path
    )
    request = BundleRequest(
        source=tmp_path / "same.onnx", platform="web", name="Same", processing=str(tmp_path)
    )
    made = make_bundle(request, tmp_path / "out")
    script = """(async () => {
      const { Same } = await import("./same.js");
      const model = await Same.load();
      const tried = (ids, small) => model.run({ ids, classValue: small }).then(
        ({ big, small: kept }) => [...big.numbers, ...kept.numbers].map(String).join(" "), (error) => error.message);
      const most = BigInt64Array.from([2n ** 53n + 1n, -1n]);
      const given = [[most, [-128, 127]], [[1, 2], [128, 0]], [[1.5, 2], [0, 0]], [[1], [0, 0]]];
      return Promise.all(given.map(([ids, small]) => tried(ids, small)));
    })()"""
    with serve(made.folder) as url, Browser() as browser:
        browser.open(f"{url}selftest.html")
        said = browser.evaluate(script)
    assert isinstance(said, list)
    wanted = (
        "9007199254740993 -1 -128 127",
        "class: 128 is no int8",
        "ids: 1.5 is no int64",
        "ids: the numbers: a size",
    )
    for text, part in zip(said, wanted, strict=True):
        assert part in text, (text, part)
