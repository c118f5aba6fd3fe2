"""What computes the model of a web bundle: WebGPU where it is right, the CPU where it is not, and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.web_site import needs_chromium, needs_compiler

from edgewright.core.errors import ConversionError
from edgewright.deploy.browser import SOFTWARE_GPU, Browser
from edgewright.deploy.bundle import Bundle
from edgewright.deploy.web_proof import prove_page, run_selftest, serve

pytestmark = [pytest.mark.slow, needs_compiler, needs_chromium]

_LOAD = """import("./colour_finder.js").then(({ ColourFinder }) => ColourFinder.load(%s)).then(
  async (model) => {
    const made = await model.run({ image: new ImageData(9, 7) });
    await model.close();
    return [model.accelerator, model.accelerators, made.colours.length];
  })"""


def load(browser: Browser, url: str, options: dict[str, object]) -> object:
    """Return what the opened model says of its accelerators."""
    browser.open(f"{url}selftest.html?accelerators=wasm")
    return browser.evaluate(_LOAD % json.dumps(options))


def test_webgpu_computes_the_golden_cases(gpu_bundle: Bundle) -> None:
    proofs = prove_page(gpu_bundle.folder, with_gpu=True)
    assert proofs[-1].startswith("self-test passed on WebGPU, computed by the CPU (SwiftShader): 4 checks")
    assert "2 threads" in proofs[0] or "1 thread" in proofs[0]


def test_the_chain_says_why_the_gpu_is_not_used(gpu_bundle: Bundle) -> None:
    with serve(gpu_bundle.folder) as url:
        with Browser(flags=SOFTWARE_GPU) as browser:
            used = load(browser, url, {"mayBeSoftware": True})
            refused = load(browser, url, {})
            only = load(browser, url, {"accelerators": ["wasm"]})
            with pytest.raises(ConversionError, match="webgpu: the only adapter is computed by the CPU"):
                load(browser, url, {"accelerators": ["webgpu"]})
            with pytest.raises(ConversionError, match="cpu is no accelerator: choose of webgpu, wasm"):
                load(browser, url, {"accelerators": ["cpu"]})
        with Browser() as browser:
            without = load(browser, url, {})
    assert used == ["webgpu", [{"name": "webgpu", "outcome": "used"}], 3]
    wasm = {"name": "wasm", "outcome": "used"}
    software = {"name": "webgpu", "outcome": "the only adapter is computed by the CPU"}
    assert refused == ["wasm", [software, wasm], 3]
    assert only == ["wasm", [wasm], 3]
    assert without == ["wasm", [{"name": "webgpu", "outcome": "WebGPU finds no adapter"}, wasm], 3]


def test_a_gpu_that_computes_something_else_is_not_used(gpu_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gpu_bundle.folder, tmp_path / "copy"))
    golden = folder / "data/golden/0_results_0.bin"
    # Other expectations are, for the page, the same as a GPU that is wrong.
    (np.fromfile(golden, "<f4") + np.float32(0.5)).astype("<f4").tofile(golden)
    with serve(folder) as url, Browser(flags=SOFTWARE_GPU) as browser:
        made = load(browser, url, {"mayBeSoftware": True})
        report = run_selftest(browser, url, "accelerators=webgpu,wasm&software=1")
    assert isinstance(made, list)
    assert made[0] == "wasm"
    assert made[1][0]["outcome"].startswith("wrong results in golden case synthetic 0: result colours: a ")
    assert report.accelerator == "wasm"
    # The self-test still says that the file and the results differ.
    assert len(report.problems) == 2


def test_a_bundle_without_the_files_says_so(web_bundle: Bundle) -> None:
    with serve(web_bundle.folder) as url, Browser(flags=SOFTWARE_GPU) as browser:
        made = load(browser, url, {"accelerators": ["webgpu", "wasm"], "mayBeSoftware": True})
    assert isinstance(made, list)
    assert made[0] == "wasm"
    assert "ort.webgpu.min.mjs cannot be loaded" in made[1][0]["outcome"]
