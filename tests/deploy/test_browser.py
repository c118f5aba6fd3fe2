"""The headless browser: values come back, errors are kept, and what does not end is ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.deploy.browser import Browser, find_chromium


def test_without_chromium_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="apt-get install -y chromium"):
        Browser()


def test_what_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    with pytest.raises(UnavailableError, match="does not start"):
        Browser()


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
def test_values_errors_and_pictures_come_back(tmp_path: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with Browser(size=(320, 200)) as browser:
        browser.open("data:text/html,<title>Here</title><script>throw new Error('boo')</script>")
        assert browser.evaluate("document.title") == "Here"
        assert browser.evaluate("Promise.resolve({ a: [1, null] })") == {"a": [1, None]}
        browser.screenshot(tmp_path / "page.png")
        assert any("boo" in error for error in browser.errors)
        with pytest.raises(ConversionError, match="gone wrong"):
            browser.evaluate("Promise.reject(new Error('gone wrong'))")
        with pytest.raises(ConversionError, match="did not come to"):
            browser.wait_for("globalThis.never", timeout_s=0.3)
        with pytest.raises(ConversionError, match="in time"):
            browser.evaluate("new Promise(() => {})", timeout_s=0.3)
        with pytest.raises(ConversionError, match="cannot be loaded"):
            browser.open("http://127.0.0.1:9/")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
