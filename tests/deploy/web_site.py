"""What tests of web bundles share: a hostile label, a server without headers, a page that is live."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.core.errors import UnavailableError
from edgewright.deploy.browser import Browser, find_chromium
from edgewright.deploy.web_runtimes import TOOLCHAIN
from edgewright.processing.c_wasm import missing_tools
from edgewright.workers.npm_packages import NpmPackage, require

needs_compiler = pytest.mark.skipif(bool(missing_tools()), reason="clang or lld is not installed")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
# A label that breaks out of anything that takes it for markup, a script or a template.
EVIL = "</script><img src=x onerror=\"document.title='broken'\">${1+1}{{7*7}}"


def skip_without(package: NpmPackage) -> None:
    """Skip the test where `package` is not installed."""
    try:
        require(TOOLCHAIN, [package])
    except UnavailableError as err:
        pytest.skip(str(err))


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


def wait_until(browser: Browser, promise: str, *, attempts: int = 600) -> None:
    """Return when `promise`, made anew each time, becomes true."""
    for _ in range(attempts):
        if browser.evaluate(promise):
            return
        time.sleep(0.1)
    raise AssertionError(f"{promise} did not become true")


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
