"""The page of a web bundle: loaded, updated, used by keyboard, and clear about what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.web_site import live, needs_chromium, needs_compiler, skip_without, wait_until

from edgewright.core.files import copy_files
from edgewright.deploy.browser import FAKE_MEDIA, Browser
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.web_proof import run_selftest, serve
from edgewright.deploy.web_runtimes import ONNXRUNTIME_WEB
from edgewright.prediction import specify
from edgewright.processing.specification import write_specification

pytestmark = [pytest.mark.slow, needs_compiler, needs_chromium]
_FAKE_CAMERA = "--use-fake-device-for-media-stream"
_MESSAGE = "document.getElementById('message').textContent"
# What a file that was chosen does; its size may be made up, so that a large one need not be.
_CHOOSE = """(() => {
  const file = new File(["no picture"], "%s");
  if (%d) Object.defineProperty(file, "size", { value: %d });
  const input = document.getElementById("file");
  Object.defineProperty(input, "files", { value: [file], configurable: true });
  input.onchange();
})()"""


def ready(browser: Browser, url: str) -> None:
    """Open the page, and return when its controls work."""
    browser.open(url)
    browser.wait_for("globalThis.app")
    browser.evaluate("app.then(() => true)")


def press(browser: Browser, key: str, code: int) -> None:
    """Press one key and let it go."""
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}
        event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **text}
        browser.call("Input.dispatchKeyEvent", event)


def caches_of(browser: Browser) -> list[str]:
    """Return the names of the caches that the browser holds."""
    found = browser.evaluate("caches.keys()")
    assert isinstance(found, list)
    return [str(name) for name in found]


def test_all_is_reached_and_used_by_keyboard(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser() as browser:
        ready(browser, url)
        reached = []
        for _ in range(4):
            press(browser, "Tab", 9)
            reached.append(
                browser.evaluate("document.activeElement.id || document.activeElement.textContent")
            )
        browser.evaluate("document.getElementById('example').focus()")
        press(browser, "Enter", 13)
        browser.wait_for("document.querySelectorAll('#panel .row').length > 0")
    assert reached == ["open", "live", "example", "Self-test"]


def test_everything_that_is_read_aloud_has_a_name(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser() as browser:
        ready(browser, url)
        browser.evaluate("app.then((app) => app.example(0))")
        nodes = browser.call("Accessibility.getFullAXTree", {})["nodes"]
    assert isinstance(nodes, list)
    named = {"button", "image", "img", "link", "meter", "progressindicator", "Audio", "heading", "region"}
    found = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in named
    ]
    assert all(name for _, name in found), found
    assert {"button", "image", "link", "meter", "heading", "region"} <= {role for role, _ in found}
    picture = next(name for role, name in found if role == "image")
    assert picture.startswith("The picture, with what was found: colours ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((_FAKE_CAMERA, "--deny-permission-prompts"), "The camera is not allowed for this page"),
        (("--use-fake-ui-for-media-stream",), "No camera is found: open a file"),
    ],
)
def test_a_camera_that_cannot_be_used_is_explained(
    web_bundle: Bundle, flags: tuple[str, ...], said: str
) -> None:
    with serve(web_bundle.folder) as url, Browser(flags=flags) as browser:
        ready(browser, url)
        browser.evaluate("document.getElementById('live').click()")
        browser.wait_for("document.querySelector('#message.bad')")
        assert str(browser.evaluate(_MESSAGE)).startswith(said)
        # The page goes on.
        browser.evaluate("app.then((app) => app.example(0))")
        assert browser.evaluate(_MESSAGE) == ""


def test_files_that_are_no_pictures_or_too_large_are_refused(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser() as browser:
        ready(browser, url)
        browser.evaluate(_CHOOSE % ("letter.txt", 0, 0))
        browser.wait_for("document.querySelector('#message.bad')")
        assert browser.evaluate(_MESSAGE) == "letter.txt is no image that this browser reads"
        browser.evaluate(_CHOOSE % ("film.bin", 1, 300 << 20))
        browser.wait_for(f"{_MESSAGE}.startsWith('film.bin')")
        assert browser.evaluate(_MESSAGE) == "film.bin has 300 MiB; at most 256 are read"


def test_without_a_network_what_was_not_kept_is_named(web_bundle: Bundle) -> None:
    with Browser() as browser:
        with serve(web_bundle.folder) as url:
            ready(browser, url)
            forget = """caches.keys().then(async ([name]) => {
              const cache = await caches.open(name);
              return cache.delete("data/model/colours.onnx");
            })"""
            wait_until(browser, forget)
        browser.open(url)
        browser.wait_for("document.querySelector('#message.bad')")
        said = browser.evaluate(_MESSAGE)
    assert (
        said == "/data/model/colours.onnx cannot be loaded: there is no network, and it was not kept before"
    )


def test_the_bytes_of_the_model_are_told_as_they_come(web_bundle: Bundle) -> None:
    script = """import("./colour_finder.js").then(async ({ ColourFinder }) => {
      const told = [];
      await ColourFinder.load({ progress: (done, all) => told.push([done, all]) });
      return told;
    })"""
    with serve(web_bundle.folder) as url, Browser() as browser:
        browser.open(f"{url}selftest.html")
        told = browser.evaluate(script)
    size = (web_bundle.folder / "data/model/colours.onnx").stat().st_size
    assert isinstance(told, list)
    assert told[-1] == [size, size]
    assert told == sorted(told)


def test_a_new_version_replaces_the_old_one_when_it_is_asked_to(web_copy: Path) -> None:
    kept = """caches.keys().then(async ([name]) => {
      const keys = await (await caches.open(name)).keys();
      return keys.map(({ url }) => new URL(url).pathname).sort();
    })"""
    with Browser() as browser:
        with serve(web_copy) as url:
            assert not run_selftest(browser, url).problems
            ready(browser, url)
            (old,) = caches_of(browser)
            kept_before = browser.evaluate(kept)
            page = web_copy / "index.html"
            page.write_text(page.read_text().replace("<h1>ColourFinder</h1>", "<h1>ColourFinder 2</h1>"))
            subprocess.run([sys.executable, str(web_copy / "update.py")], check=True, capture_output=True)
            # The old version goes on, whole, until the user wants the new one.
            ready(browser, url)
            browser.wait_for("!document.getElementById('update').hidden")
            assert browser.evaluate("document.querySelector('h1').textContent") == "ColourFinder"
            assert len(caches_of(browser)) == 2 and old in caches_of(browser)
            browser.evaluate("document.getElementById('update').click()")
            browser.wait_for(
                "document.querySelector('h1')?.textContent === 'ColourFinder 2' && globalThis.app"
            )
            wait_until(browser, "caches.keys().then((names) => names.length === 1)")
            assert caches_of(browser) != [old]
            # What is the same in both was taken over: model and runtime are kept already.
            assert browser.evaluate(kept) == kept_before
        # The whole of the new version is here without the server.
        assert not run_selftest(browser, url).problems


def test_a_broken_file_is_noticed_and_not_kept(web_copy: Path) -> None:
    model = web_copy / "data/model/colours.onnx"
    right = model.read_bytes()
    with serve(web_copy) as url, Browser() as browser:
        model.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        broken = run_selftest(browser, url)
        model.write_bytes(right)
        mended = run_selftest(browser, url)
    assert any("data/model/colours.onnx has the digest" in problem for problem in broken.problems)
    assert not mended.problems


def test_the_camera_and_the_example_take_turns(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser(flags=FAKE_MEDIA) as browser:
        live(browser, url)
        browser.evaluate("document.getElementById('live').click()")
        browser.wait_for("document.getElementById('live').ariaPressed === 'true'")
        browser.evaluate("app.then((app) => app.example(0))")
        assert browser.evaluate("document.getElementById('live').ariaPressed") == "false"
        assert not browser.errors


def test_late_sound_is_moved_back(assets: Path, tmp_path: Path) -> None:
    skip_without(ONNXRUNTIME_WEB)
    models = {path.name: path for path in sorted((assets / "models/dtln").glob("model_?.onnx"))}
    copy_files(models, tmp_path / "dtln")
    checked = specify([tmp_path / "dtln" / name for name in models], processing="dtln")
    write_specification(checked.specification, tmp_path / "dtln")
    sample = str(assets / "data/silero-audio/test.wav")
    request = BundleRequest(source=tmp_path / "dtln", platform="web", name="Denoiser", samples=(sample,))
    made = make_bundle(request, tmp_path / "out")
    (result,) = json.loads((made.folder / "data/interface.json").read_text())["results"]
    assert result["lag"] == 384  # a frame has 512 samples, of which 128 are new
    assert "384 samples behind the input" in (made.folder / "denoiser.d.ts").read_text()
    script = """app.then(async (app) => {
      const blobs = [];
      const real = URL.createObjectURL;
      URL.createObjectURL = (blob) => (blobs.push(blob), real.call(URL, blob));
      await app.example(0);
      const samples = async (blob) => new Int16Array((await blob.arrayBuffer()).slice(44));
      const [before, after] = [await samples(blobs[0]), await samples(blobs.at(-1))];
      const likeness = (shift) => before.reduce((sum, value, at) => sum + value * (after[at + shift] ?? 0), 0);
      const shifts = Array.from({ length: 1201 }, (_, index) => index - 600);
      const best = shifts.reduce((most, shift) => (likeness(shift) > likeness(most) ? shift : most), 0);
      return [best, before.length, after.length, document.getElementById("panel").innerText];
    })"""
    with serve(made.folder) as url, Browser() as browser:
        ready(browser, url)
        found = browser.evaluate(script)
    assert isinstance(found, list)
    best, before, after, text = found
    assert abs(best) <= 4
    assert before == after
    assert "Comes 24 ms late; moved back" in text
