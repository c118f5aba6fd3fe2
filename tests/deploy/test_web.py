"""Web bundles: complete, escaped, true to their golden cases in a browser, and caught when they are not."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.colour_model import colour_specification, plain_image, write_colour_model

from edgewright.core.errors import UnavailableError, UsageError
from edgewright.deploy.browser import FAKE_MEDIA, Browser, find_chromium
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.npm_packages import LITERTJS_CORE, ONNXRUNTIME_WEB, cache_folder, fetch
from edgewright.deploy.web import FILES_NAME, WebPlatform
from edgewright.deploy.web_proof import prove_page, run_example, run_selftest, serve
from edgewright.processing.c_code import write_core
from edgewright.processing.c_wasm import build_wasm, missing_tools
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import read_specification, write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(bool(missing_tools()), reason="clang or lld is not installed")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
# A label that breaks out of anything that takes it for markup, a script or a template.
EVIL = "</script><img src=x onerror=\"document.title='broken'\">${1+1}{{7*7}}"


@pytest.fixture(scope="module")
def package() -> None:
    """The runtime's archive: kept already, or fetched."""
    try:
        fetch(ONNXRUNTIME_WEB)
    except UnavailableError as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model, its processing beside it; one label is hostile."""
    folder = tmp_path_factory.mktemp("colours")
    specification = colour_specification()
    (result,) = specification.results
    write_specification(
        replace(specification, results=(replace(result, labels=("red", EVIL, "blue")),)), folder
    )
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="module")
def written(package: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle, not yet seen by a browser."""
    request = BundleRequest(source=model, platform="web", name="ColourFinder", licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebPlatform, "prove", lambda self, content, folder: ())
        return make_bundle(request, tmp_path_factory.mktemp("bundle") / "colours")


@pytest.fixture
def copy(written: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written.folder, tmp_path / "copy"))


@contextlib.contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    """Give the address of a server that knows nothing of COOP and COEP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_project_is_complete_and_checks(written: Bundle) -> None:
    names = {str(path.relative_to(written.folder)) for path in written.folder.rglob("*") if path.is_file()}
    for name in ("index.html", "selftest.html", "sw.js", "serve.py", "package.json", "README.md", "files.json",
                 "colour_finder.js", "colour_finder.d.ts", "core/processing.wasm", "data/model/colours.onnx",
                 "vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm", "LICENSES/edgewright.txt",
                 "LICENSES/onnxruntime-web.txt"):  # fmt: skip
        assert name in names
    assert check_bundle(written.folder).exit_code == 0
    (size,) = written.written.sizes
    assert size.abi == "wasm32"
    assert (size.core_bytes or 0) == (written.folder / "core/processing.wasm").stat().st_size
    assert (size.runtime_bytes or 0) > 10_000_000


def test_every_file_that_runs_is_listed_with_its_digest(written: Bundle) -> None:
    files = json.loads((written.folder / FILES_NAME).read_text())["files"]
    for name, digest in files.items():
        assert hashlib.sha256((written.folder / name).read_bytes()).hexdigest() == digest
    unlisted = {"sw.js", FILES_NAME, "manifest.json", "bom.json", "README.md"}
    found = {str(path.relative_to(written.folder)) for path in written.folder.rglob("*") if path.is_file()}
    assert found - set(files) == unlisted


def test_the_worker_keeps_what_the_page_needs(written: Bundle) -> None:
    listed = json.loads((written.folder / FILES_NAME).read_text())
    needed = {name for name in listed["files"] if not name.startswith(tuple(listed["later"]))}
    assert {"index.html", "core/processing.wasm", "data/model/colours.onnx", "data/interface.json"} <= needed
    assert not any(name.startswith(("vendor/", "data/golden/", "core/source/")) for name in needed)
    assert (
        hashlib.sha256((written.folder / FILES_NAME).read_bytes()).hexdigest()[:16]
        in (written.folder / "sw.js").read_text()
    )


def test_update_takes_a_change_in(copy: Path) -> None:
    before = (copy / "sw.js").read_text()
    command = [sys.executable, str(copy / "update.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("0 of")
    (copy / "app.js").write_text("// mine")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("1 of")
    assert WebPlatform().inspect(copy) == {FILES_NAME: []}
    after = (copy / "sw.js").read_text()
    assert after != before
    assert hashlib.sha256((copy / FILES_NAME).read_bytes()).hexdigest()[:16] in after


@pytest.mark.parametrize("name", ["App", "SelftestPage", "Float32Array"])
def test_names_that_the_bundle_uses_itself_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    request = BundleRequest(source=model, platform="web", name=name, processing=str(model.parent))
    with pytest.raises(UsageError, match=f"something called {name}"):
        make_bundle(request, tmp_path / "out")


def test_names_are_escaped_and_scripts_are_files(written: Bundle) -> None:
    for page in written.folder.glob("*.html"):
        text = page.read_text()
        assert "script-src 'self' 'wasm-unsafe-eval'" in text
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", text)
    for script in (*written.folder.glob("*.js"), *written.folder.glob("lib/*.js")):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text()
        )
    holders = [
        path for path in written.folder.rglob("*") if path.is_file() and b"onerror" in path.read_bytes()
    ]
    places = {str(path.relative_to(written.folder)).split("/")[0] for path in holders}
    assert places <= {"data", "core", "vendor"}


def test_the_scripts_are_javascript(written: Bundle, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    for script in (*written.folder.glob("*.js"), *written.folder.glob("lib/*.js")):
        module = tmp_path / f"{script.stem}.mjs"
        shutil.copyfile(script, module)
        done = subprocess.run(["node", "--check", str(module)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_bill_of_materials_names_the_packages(written: Bundle) -> None:
    parts = {
        part["name"]: part for part in json.loads((written.folder / "bom.json").read_text())["components"]
    }
    assert parts["onnxruntime-web"]["purl"] == f"pkg:npm/onnxruntime-web@{ONNXRUNTIME_WEB.version}"


def test_a_changed_file_is_found_even_where_the_manifest_was_made_anew(copy: Path) -> None:
    (copy / "app.js").write_text("alert(1)")
    assert WebPlatform().inspect(copy) == {FILES_NAME: ["app.js is not the file that files.json describes"]}


def test_two_results_of_one_name_in_javascript_are_refused(model: Path, tmp_path: Path) -> None:
    specification = read_specification(model.parent)
    (result,) = specification.results
    results = (replace(result, name="top_colour"), replace(result, name="topColour"))
    write_specification(replace(specification, results=results), tmp_path / "processing")
    request = BundleRequest(
        source=model, platform="web", name="Twins", processing=str(tmp_path / "processing")
    )
    with pytest.raises(UsageError, match="topColour, topColour"):
        make_bundle(request, tmp_path / "out")


def test_without_a_browser_it_is_said(
    written: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (said,) = WebPlatform().prove(written.content, written.folder)
    assert said == "not run here: no Chromium is installed: apt-get install -y chromium"


@pytest.mark.slow
@needs_chromium
def test_it_works_in_a_browser_with_and_without_the_server(written: Bundle) -> None:
    proofs = prove_page(written.folder)
    assert "isolated by COOP and COEP: 4 checks" in proofs[0]
    assert "server stopped" in proofs[1]


@pytest.mark.slow
@needs_chromium
def test_hostile_labels_stay_text(written: Bundle) -> None:
    with serve(written.folder) as url, Browser() as browser:
        said = run_example(browser, url)
        assert EVIL in said
        assert browser.evaluate("document.title") == "ColourFinder"
        assert browser.evaluate("document.querySelectorAll('#panel img').length") == 0


def live(browser: Browser, url: str) -> None:
    """Use the page's camera or microphone until it has shown five results, and stop it."""
    browser.open(url)
    browser.wait_for("globalThis.app")
    count = """app.then((app) => {
      globalThis.shown = 0;
      new MutationObserver(() => { shown += 1; }).observe(document.getElementById("panel"), { childList: true });
      document.getElementById("live").click();
    })"""
    browser.evaluate(count)
    browser.wait_for("globalThis.shown > 5")
    assert browser.evaluate("document.getElementById('message').textContent") == ""
    assert browser.evaluate("document.querySelectorAll('#panel .row').length") != 0
    browser.evaluate("document.getElementById('live').click()")
    browser.wait_for("document.getElementById('live').textContent.startsWith('Use')")
    assert not browser.errors


@pytest.mark.slow
@needs_chromium
def test_the_camera_is_shown_live(written: Bundle) -> None:
    with serve(written.folder) as url, Browser(flags=FAKE_MEDIA) as browser:
        live(browser, url)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("kind", ["png", "upright by its tag", "grey", "alpha", "16 bits"])
def test_a_picture_file_gives_what_its_pixels_give(written: Bundle, kind: str) -> None:
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
    with serve(written.folder) as url, Browser() as browser:
        browser.open(f"{url}selftest.html")
        made = browser.evaluate(script)
    assert isinstance(made, list)
    assert made[0] == made[1]
    assert made[0]["colours"][0]["name"] == "red"


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("data/model/colours.onnx", "data/model/colours.onnx has the digest"),
        ("data/golden/0_results_0.bin", "data/golden/0_results_0.bin has the digest"),
        ("core/processing.wasm", "core/processing.wasm has the digest"),
        ("lib/engine.js", "lib/engine.js has the digest"),
    ],
)
def test_a_flipped_byte_fails_the_self_test(copy: Path, name: str, problem: str) -> None:
    content = bytearray((copy / name).read_bytes())
    # Of a script a letter of its first comment, so that it still runs.
    content[5 if name.endswith(".js") else len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with serve(copy) as url, Browser() as browser:
        report = run_selftest(browser, url)
    assert any(problem in line for line in report.problems)


@pytest.mark.slow
@needs_chromium
def test_a_swapped_colour_order_fails_the_self_test(copy: Path, tmp_path: Path) -> None:
    from edgewright.core.tensors import TensorSpec

    signature = Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 3, 8, 8), dtype="float32"),),
        outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
    )
    core = write_core(plan(colour_specification("bgr"), signature), tmp_path / "core", "colour_finder")
    build_wasm(core, copy / "core/processing.wasm")
    files = json.loads((copy / FILES_NAME).read_text())
    files["files"]["core/processing.wasm"] = hashlib.sha256(
        (copy / "core/processing.wasm").read_bytes()
    ).hexdigest()
    (copy / FILES_NAME).write_text(json.dumps(files))
    with serve(copy) as url, Browser() as browser:
        report = run_selftest(browser, url)
    assert any("golden case synthetic 0: tensor pixels differs by" in line for line in report.problems)
    assert not any("digest" in line for line in report.problems)


@pytest.mark.slow
@needs_chromium
def test_bad_inputs_are_errors_that_a_program_can_catch(written: Bundle) -> None:
    script = """(async () => {
      const { ColourFinder } = await import("./colour_finder.js");
      const model = await ColourFinder.load();
      const tried = async (image) => model.run({ image }).then(() => "ran", (error) => error.message);
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
    with serve(written.folder) as url, Browser() as browser:
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


@pytest.mark.slow
@needs_chromium
def test_a_server_without_headers_gets_threads_from_the_worker(written: Bundle) -> None:
    with plain_server(written.folder) as url, Browser() as browser:
        first, second = run_selftest(browser, url), run_selftest(browser, url)
    assert not first.problems and not second.problems
    assert not first.is_isolated and second.is_isolated


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Bundle:
    """A bundle for sound, by LiteRT.js, proven."""
    try:
        fetch(LITERTJS_CORE)
    except UnavailableError as err:
        pytest.skip(str(err))
    clips = sorted((assets / "data/speech-commands").glob("*.wav"))
    request = BundleRequest(
        source=assets / "models/mlperf-tiny/kws_dscnn_int8.tflite",
        platform="web",
        name="WordSpotter",
        processing="kws_mfcc",
        samples=tuple(map(str, clips[:2])),
    )
    return make_bundle(request, tmp_path_factory.mktemp("bundle") / "words")


@pytest.mark.slow
@needs_chromium
def test_keywords_by_litert_go_on_offline_after_one_visit_without_threads(words: Bundle) -> None:
    proofs = words.record["proofs"]
    assert isinstance(proofs, list)
    assert "isolated by COOP and COEP" in proofs[0]
    with Browser() as browser:
        with plain_server(words.folder) as url:
            first = run_example(browser, url)
            assert not browser.evaluate("crossOriginIsolated")
        # Now the worker makes the page isolated, but kept the build without threads alone.
        browser.open(url)
        browser.wait_for("globalThis.app")
        second = browser.evaluate(
            "app.then(() => [crossOriginIsolated, document.getElementById('runtime').textContent])"
        )
    assert "stop" in first
    assert second == [True, "LiteRT.js 2.5.3, 1 thread"]


@pytest.mark.slow
@needs_chromium
def test_litert_without_relaxed_vectors_as_in_safari(words: Bundle) -> None:
    # What the runtime tries to find out is a module of less than 100 bytes.
    hide = """const real = WebAssembly.instantiate;
    WebAssembly.instantiate = (what, ...more) => what.length < 100 ? Promise.reject(new Error()) : real(what, ...more);"""
    loaded = "performance.getEntriesByType('resource').map(({ name }) => name.split('/').at(-1))"
    with serve(words.folder) as url, Browser() as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
        assert not run_selftest(browser, url).problems
        assert "stop" in run_example(browser, url)
        names = browser.evaluate(loaded)
    assert isinstance(names, list)
    assert [name for name in names if name.startswith("litert_wasm_") and name.endswith(".wasm")] == [
        "litert_wasm_compat_internal.wasm"
    ]


@pytest.mark.slow
@needs_chromium
def test_the_microphone_is_heard_live(words: Bundle) -> None:
    with serve(words.folder) as url, Browser(flags=FAKE_MEDIA) as browser:
        live(browser, url)


@pytest.mark.slow
@needs_chromium
def test_odd_sound_is_brought_to_the_input_or_refused(words: Bundle) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as stereo:
        stereo.setnchannels(2)
        stereo.setsampwidth(2)
        stereo.setframerate(44_100)
        tone = 8000 * np.sin(np.arange(22_050) * 2 * np.pi * 440 / 44_100)
        stereo.writeframes(np.stack([tone, np.zeros_like(tone)], axis=1).astype("<i2").tobytes())
    content = base64.b64encode(file.getvalue()).decode()
    script = f"""(async () => {{
      const {{ WordSpotter }} = await import("./word_spotter.js");
      const {{ readSound, wav }} = await import("./lib/sound.js");
      const bytes = Uint8Array.from(atob("{content}"), (letter) => letter.charCodeAt(0));
      const model = await WordSpotter.load();
      const field = model.description.inputs[0].field;
      const tried = async (work) => Promise.resolve().then(work).then(() => "ran", (error) => error.message);
      const heard = (samples) => () => model.run({{ [field]: samples }});
      const mono = await readSound(new Blob([bytes]), 16000);
      const again = await readSound(wav(mono, 16000), 16000);
      return [
        mono.length, Math.max(...mono), Math.max(...mono.map((sample, index) => Math.abs(sample - again[index]))),
        await tried(() => readSound(new Blob(["no sound"]), 16000)),
        await tried(() => readSound(new Blob([bytes.slice(0, 30)]), 16000)),
        await tried(heard(new Float32Array(16000))),
        await tried(heard(new Float32Array(16000).fill(NaN))),
        await tried(heard(new Float32Array(0))),
        await tried(heard(new Int16Array(16000))),
        await tried(heard([0.5, 0.25])),
      ];
    }})()"""
    with serve(words.folder) as url, Browser() as browser:
        browser.open(f"{url}selftest.html")
        said = browser.evaluate(script)
    assert isinstance(said, list)
    length, most, difference, *texts = said
    assert length == 8000
    assert most == pytest.approx(0.5 * 8000 / 32768, rel=0.02)
    assert difference < 1e-4
    wanted = (
        "no sound that this browser reads", "no sound that this browser reads", "ran", "not a number", "a size is 0",
        "is no Float32Array", "ran",
    )  # fmt: skip
    for text, part in zip(texts, wanted, strict=True):
        assert part in text, (text, part)


def test_the_kept_archive_lies_beside_the_toolchains() -> None:
    assert cache_folder().name == "npm"
