"""Show that a web bundle works: its self-test and its page in a headless Chromium, with the server and without it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.deploy.browser import SOFTWARE_GPU, Browser

_SELFTEST_TIMEOUT_S = 600.0
_SERVER_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class SelftestReport:
    """What the self-test page says.

    Attributes:
        problems: a line each; empty where all is right.
        runtime: its name and version.
        accelerators: what was tried -> its outcome; the last is used.
        errors: what the browser's console calls errors: a refused script, a missing file.
    """

    problems: tuple[str, ...]
    checks: int
    runtime: str
    threads: int
    accelerators: Mapping[str, str]
    is_isolated: bool
    offline: str
    browser: str
    errors: tuple[str, ...]

    @property
    def accelerator(self) -> str:
        """What computes the model; empty where nothing does."""
        return next((name for name, outcome in self.accelerators.items() if outcome == "used"), "")


def prove_page(folder: Path, *, with_gpu: bool = False) -> tuple[str, ...]:
    """Return what was shown of the bundle in `folder`, in plain words.

    Args:
        with_gpu: WebGPU is one of its accelerators.
    Raises:
        ConversionError: the self-test or the page fails.
        UnavailableError: there is no Chromium.
    """
    with Browser() as browser:
        with serve(folder) as url:
            online = run_selftest(browser, url)
            _require(online, "with the server")
            # Once more, from the service worker: what the first visit fetched before it ran is kept now.
            _require(run_selftest(browser, url), "with the server, again")
            shown = run_example(browser, url)
        offline = run_selftest(browser, url)
        _require(offline, "offline")
        run_example(browser, url)
        with serve(folder, is_plain=True) as url:
            first = run_selftest(browser, url)
            _require(first, "without COOP and COEP")
            second = run_selftest(browser, url)
            _require(second, "isolated by its service worker")
    return (
        f"self-test passed in {online.browser}, headless, {online.runtime}, {_conditions(online)}: "
        f"{online.checks} checks",
        "self-test and page again with the server stopped, from the service worker: passed",
        f"self-test from a server without these headers: passed at the first visit, {_conditions(first)}, "
        f"and at the second, {_conditions(second)}",
        f"page: {shown}",
        *([_prove_gpu(folder)] if with_gpu else []),
    )


def _conditions(report: SelftestReport) -> str:
    isolated = "isolated by COOP and COEP" if report.is_isolated else "not isolated"
    return f"{report.threads} thread{'s' if report.threads != 1 else ''}, {isolated}"


def _prove_gpu(folder: Path) -> str:
    """Return what WebGPU gives where the CPU computes it; no GPU is expected here."""
    with Browser(flags=SOFTWARE_GPU) as browser, serve(folder) as url:
        report = run_selftest(browser, url, "accelerators=webgpu,wasm&software=1")
    _require(report, "with WebGPU")
    where = "on WebGPU, computed by the CPU (SwiftShader)"
    if report.accelerator == "webgpu":
        return f"self-test passed {where}: {report.checks} checks; not shown on a GPU"
    return f"self-test {where}: not used ({report.accelerators['webgpu']}), passed on the CPU instead"


def run_selftest(browser: Browser, url: str, options: str = "") -> SelftestReport:
    """Return what `selftest.html` under `url` says.

    Args:
        options: of its address: accelerators=wasm&threads=1.
    Raises:
        ConversionError: the page cannot be loaded, or does not end.
    """
    browser.errors.clear()
    browser.open(f"{url}selftest.html{options and '?'}{options}")
    browser.wait_for("globalThis.selftest")
    report = browser.evaluate("globalThis.selftest", timeout_s=_SELFTEST_TIMEOUT_S)
    assert isinstance(report, dict)
    runtime = report["runtime"]
    return SelftestReport(
        problems=tuple(
            f"{row['what']}: {problem}" for row in report["checks"] for problem in row["problems"]
        ),
        checks=len(report["checks"]),
        runtime=" ".join(str(runtime.get(key, "")) for key in ("name", "version")).strip(),
        threads=int(runtime.get("threads", 0)),
        accelerators={str(row["name"]): str(row["outcome"]) for row in report["accelerators"]},
        is_isolated=bool(report["isolated"]),
        offline=str(report["offline"]),
        browser=str(browser.call("Browser.getVersion", {})["product"]),
        errors=tuple(browser.errors),
    )


def run_example(browser: Browser, url: str) -> str:
    """Return what the page says when it runs its first example.

    Raises:
        ConversionError: it fails, or the console holds errors.
    """
    browser.errors.clear()
    browser.open(url)
    browser.wait_for("globalThis.app")
    said = browser.evaluate("globalThis.app.then((app) => app.example(0))", timeout_s=_SELFTEST_TIMEOUT_S)
    if browser.errors:
        raise ConversionError(f"the page of the web bundle has errors: {'; '.join(browser.errors)[:600]}")
    return str(said)


@contextlib.contextmanager
def serve(folder: Path, *, is_plain: bool = False) -> Iterator[str]:
    """Give the address at which the bundle's own `serve.py` serves it.

    Args:
        is_plain: without COOP and COEP.
    Raises:
        ConversionError: it does not start.
    """
    process = subprocess.Popen(
        [sys.executable, str(folder / "serve.py"), "--port", "0", *(["--plain"] if is_plain else [])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url.startswith("http://"):
            process.kill()
            _, said = process.communicate(timeout=_SERVER_TIMEOUT_S)
            raise ConversionError(f"the web bundle's serve.py does not start: {said.strip()[-300:]}")
        yield url
    finally:
        process.kill()
        process.communicate(timeout=_SERVER_TIMEOUT_S)


def _require(report: SelftestReport, when: str) -> None:
    found = (*report.problems, *report.errors)
    if found:
        raise ConversionError(
            f"the self-test of the web bundle fails in Chromium {when}: {'; '.join(found)[:900]}"
        )
    if report.offline != "kept for offline use":
        raise ConversionError(f"the web bundle is {report.offline}.")
