"""A headless Chromium, driven over a pipe by the Chrome DevTools Protocol: no package is needed for it.

The protocol: https://chromedevtools.github.io/devtools-protocol/. With `--remote-debugging-pipe` the browser reads
messages from file descriptor 3 and writes to 4, JSON with a zero byte behind each.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from edgewright.core.errors import ConversionError, UnavailableError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--disable-dev-shm-usage",
)  # fmt: skip
# A camera that shows a moving picture and a microphone that beeps.
FAKE_MEDIA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
_NO_GPU = ("--disable-gpu",)
# WebGPU that the CPU computes (SwiftShader, a part of Chromium), where there is no GPU.
SOFTWARE_GPU = (
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
    "--ignore-gpu-blocklist",
)  # fmt: skip
_MAX_MESSAGE_BYTES = 256 << 20
_START_TIMEOUT_S = 120.0
_FIRST_FREE = 10  # descriptors below may be 3 or 4 themselves


def find_chromium() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page, a fresh profile, and what its console said.

    Args:
        size: of the page in pixels: width, height.
    Raises:
        UnavailableError: there is no Chromium, or it does not start.
    """

    def __init__(self, *, size: tuple[int, int] = (1200, 900), flags: Sequence[str] = ()) -> None:
        chromium = find_chromium()
        if chromium is None:
            raise UnavailableError("no Chromium is installed: apt-get install -y chromium")
        self.errors: list[str] = []
        self._number = 0
        self._left = b""
        self._profile = tempfile.TemporaryDirectory(prefix="edgewright-browser-", ignore_cleanup_errors=True)
        # Chromium's sandbox does not work for root.
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        gpu = () if set(SOFTWARE_GPU) <= set(flags) else _NO_GPU
        command = [
            chromium, *_FLAGS, *gpu, *sandbox, *flags, f"--window-size={size[0]},{size[1]}",
            f"--user-data-dir={self._profile.name}", "about:blank",
        ]  # fmt: skip
        self._process, self._to, self._from = _start(command)
        try:
            self._session = ""
            self._session = self._attach()
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable", {})
            self.call(
                "Emulation.setDeviceMetricsOverride",
                {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
            )
        except BaseException as err:
            self.close()
            if isinstance(err, ConversionError):
                raise UnavailableError(f"{chromium} does not start: {err}") from err
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, url: str) -> None:
        """Go to `url`, and return when it and its scripts are loaded.

        Raises:
            ConversionError: the page cannot be loaded.
        """
        answer = self.call("Page.navigate", {"url": url})
        if answer.get("errorText"):
            raise ConversionError(f"the page cannot be loaded in Chromium: {answer['errorText']}.")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str, *, timeout_s: float = 60.0) -> object:
        """Return the value of a JavaScript expression as JSON holds it; of a promise, what becomes of it.

        Raises:
            ConversionError: it throws, or takes longer.
        """
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", parameters, timeout_s=timeout_s)
        thrown = answer.get("exceptionDetails")
        if isinstance(thrown, dict):
            what = thrown.get("exception")
            text = what.get("description") if isinstance(what, dict) else None
            raise ConversionError(f"the page fails in Chromium: {str(text or thrown.get('text'))[:600]}")
        result = answer["result"]
        assert isinstance(result, dict)
        return result.get("value")

    def wait_for(self, expression: str, *, timeout_s: float = 60.0) -> None:
        """Return when `expression` is true.

        Raises:
            ConversionError: it does not become true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                raise ConversionError(f"the page did not come to {expression!r} in {timeout_s:.0f} s.")
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        """Write what the page shows as a PNG."""
        data = self.call("Page.captureScreenshot", {"format": "png"})["data"]
        path.write_bytes(base64.b64decode(str(data)))

    def call(
        self, method: str, parameters: Mapping[str, object], *, timeout_s: float = _START_TIMEOUT_S
    ) -> dict[str, object]:
        """Return the answer to one message of the protocol.

        Raises:
            ConversionError: the browser refuses it, says nothing in time, or has ended.
        """
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": dict(parameters)}
        if self._session:
            message["sessionId"] = self._session
        try:
            _write_all(self._to, json.dumps(message).encode() + b"\0")
        except OSError as err:
            raise ConversionError("Chromium has ended.") from err
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                break
            self._note(answer)
        error = answer.get("error")
        if isinstance(error, dict):
            raise ConversionError(f"Chromium refuses {method}: {error.get('message')}.")
        result = answer.get("result")
        assert isinstance(result, dict)
        return result

    def close(self) -> None:
        """End the browser and its children, and remove the profile."""
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._profile.cleanup()

    def _attach(self) -> str:
        targets = self.call("Target.getTargets", {})["targetInfos"]
        assert isinstance(targets, list)
        page = next(row["targetId"] for row in targets if row["type"] == "page")
        answer = self.call("Target.attachToTarget", {"targetId": page, "flatten": True})
        return str(answer["sessionId"])

    def _note(self, message: Mapping[str, object]) -> None:
        """Keep what the console calls an error."""
        parameters = message.get("params")
        if not isinstance(parameters, dict):
            return
        if message.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            if entry.get("level") == "error":
                self.errors.append(f"{entry.get('text')} {entry.get('url', '')}".strip()[:400])
        elif message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            what = details.get("exception", {}).get("description") or details.get("text")
            self.errors.append(str(what)[:400])

    def _receive(self, deadline: float, what: str) -> dict[str, object]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ConversionError(f"Chromium did not answer {what} in time.")
            part = os.read(self._from, 1 << 20)
            if not part or len(self._left) > _MAX_MESSAGE_BYTES:
                raise ConversionError("Chromium has ended.")
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        message: object = json.loads(text)
        assert isinstance(message, dict)
        return message


def _start(command: Sequence[str]) -> tuple[int, int, int]:
    """Return the process, the descriptor to write to and the one to read from."""
    pipes = [os.pipe() for _ in range(2)]
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for pipe in pipes for end in pipe]
    for pipe in pipes:
        for end in pipe:
            os.close(end)
    child_reads, to, from_, child_writes = ends
    silent = os.open(os.devnull, os.O_RDWR)
    try:
        process = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, silent, number) for number in (0, 1, 2)),
                (os.POSIX_SPAWN_DUP2, child_reads, 3),
                (os.POSIX_SPAWN_DUP2, child_writes, 4),
            ],
            setsid=True,
        )
    except OSError as err:
        os.close(to)
        os.close(from_)
        raise UnavailableError(f"{command[0]} cannot be started: {err.strerror}.") from err
    finally:
        for end in (child_reads, child_writes, silent):
            os.close(end)
    return process, to, from_


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
