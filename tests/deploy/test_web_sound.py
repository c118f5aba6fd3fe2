"""Web bundles of sound, by LiteRT.js: in each of its builds, offline, live, and with odd files."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.web_site import live, needs_chromium, needs_compiler, plain_server, skip_without

from edgewright.deploy.browser import FAKE_MEDIA, SOFTWARE_GPU, Browser
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.web_proof import run_example, run_selftest, serve
from edgewright.deploy.web_runtimes import LITERTJS_CORE

pytest.importorskip("ai_edge_litert")
pytestmark = [pytest.mark.slow, needs_compiler, needs_chromium]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Bundle:
    """A bundle for sound, by LiteRT.js, proven."""
    skip_without(LITERTJS_CORE)
    clips = sorted((assets / "data/speech-commands").glob("*.wav"))
    request = BundleRequest(
        source=assets / "models/mlperf-tiny/kws_dscnn_int8.tflite",
        platform="web",
        name="WordSpotter",
        processing="kws_mfcc",
        samples=tuple(map(str, clips[:2])),
    )
    return make_bundle(request, tmp_path_factory.mktemp("bundle") / "words")


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


def test_litert_computes_on_webgpu_what_is_float_and_says_why_not_else(
    words: Bundle, tmp_path: Path, assets: Path
) -> None:
    request = BundleRequest(
        source=assets / "models/mlperf-tiny/kws_dscnn_fp32.tflite",
        platform="web",
        name="WordSpotter",
        processing="kws_mfcc",
        samples=(str(assets / "data/micro-speech/yes_1000ms.wav"),),
        options=("accelerator=webgpu",),
    )
    made = make_bundle(request, tmp_path / "out")
    proofs = made.record["proofs"]
    assert isinstance(proofs, list)
    assert proofs[-1].startswith("self-test passed on WebGPU, computed by the CPU (SwiftShader)")
    with serve(words.folder) as url, Browser(flags=SOFTWARE_GPU) as browser:
        report = run_selftest(browser, url, "accelerators=webgpu,wasm&software=1")
    assert not report.problems
    assert report.accelerators == {
        "webgpu": "a model whose inputs are not float32 does not run there",
        "wasm": "used",
    }


def test_litert_without_relaxed_vectors_as_in_safari(words: Bundle) -> None:
    # What the runtime tries to find out is a module of less than 100 bytes.
    hide = """const real = WebAssembly.instantiate;
    WebAssembly.instantiate = (what, ...more) =>
      what.length < 100 ? Promise.reject(new Error()) : real(what, ...more);"""
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


def test_the_microphone_is_heard_live(words: Bundle) -> None:
    with serve(words.folder) as url, Browser(flags=FAKE_MEDIA) as browser:
        live(browser, url)


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
        "it is no Float32Array", "ran",
    )  # fmt: skip
    for text, part in zip(texts, wanted, strict=True):
        assert part in text, (text, part)
