"""Workers: run operations in child processes, within limits of time and memory.

Vendor libraries crash, hang, print and leak; a child process keeps all of that away from the caller, who gets
a dictionary or an EdgewrightError.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from edgewright.core.errors import EdgewrightError, WorkerError, error_from_name
from edgewright.workers import environments, protocol
from edgewright.workers.memory import resident_bytes
from edgewright.workers.process import ChildProcess, signal_name, start_child
from edgewright.workers.protocol import ProtocolError, Request

_MEMORY_POLL_S = 0.1
_QUOTED_LOG_LINES = 6
_QUOTED_LINE_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may take.

    timeout_s: wall-clock seconds per request, the start of the process included.
    memory_bytes: resident memory of the child and its descendants, looked at every 100 ms.
    """

    timeout_s: float = 600.0
    memory_bytes: int = 8 << 30


DEFAULT_LIMITS = Limits()


class Worker:
    """A child process that serves one request after another; a context manager.

    After a crash, a timeout or a memory kill `call` raises WorkerError, and the next `call` starts a new
    process. One thread calls at a time; `close` may come from any thread and ends a call that is under way.
    """

    def __init__(
        self,
        name: str,
        *,
        limits: Limits = DEFAULT_LIMITS,
        env: Mapping[str, str] | None = None,
        environment: str = "",
    ) -> None:
        """Describe the worker; the process starts with `with`, with `start`, or with the first call.

        Args:
            name: what messages call it.
            limits: for every request.
            env: added to the environment of the child, OMP_NUM_THREADS for instance.
            environment: name of the toolchain environment to run in; empty is the caller's own.
        """
        self.name = name
        self.limits = limits
        self._env = dict(env or {})
        self._environment = environment
        self._lock = threading.RLock()
        self._child: ChildProcess | None = None
        self._number = 0
        self._last_log = ""
        self._log_mark_bytes = 0
        self._last_words = ""
        self._is_closed = False
        self._memory_looked_s = 0.0

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the child, or None when none runs."""
        child = self._child
        return None if child is None else child.popen.pid

    @property
    def log_tail(self) -> str:
        """The last 64 KiB that the child wrote to stdout and stderr, of the ended child when none runs."""
        child = self._child
        return self._last_log if child is None else child.log.text()

    def start(self) -> None:
        """Start the process unless it runs, so that its start overlaps with what the caller does next.

        Raises:
            UnavailableError: the toolchain environment is not installed, or is no longer what was installed.
            WorkerError: closed, or the system cannot start a process.
        """
        with self._lock:
            if self._is_closed:
                raise WorkerError(f"worker {self.name!r} is closed. Make a new one.")
            if self._child is not None:
                return
            interpreter = environments.interpreter(self._environment) if self._environment else None
            env = {**environments.variables(), **self._env} if self._environment else self._env
            try:
                self._child = start_child(env, interpreter)
            except OSError as err:
                raise WorkerError(
                    f"worker {self.name!r} could not be started: {err.strerror or err}. Free processes, "
                    f"memory or space in the temporary folder."
                ) from err

    def call(
        self, operation: str, arguments: Mapping[str, object], *, timeout_s: float | None = None
    ) -> dict[str, object]:
        """Return what `operation` returns for `arguments`.

        Args:
            operation: "package.module:function", imported in the child.
            arguments: JSON; arrays travel as .npy files whose paths are in it.
            timeout_s: replaces the limit of the worker.
        Raises:
            EdgewrightError: the class that the operation raised.
            WorkerError: any other exception in the operation, a crash, a limit, or a breach of the protocol.
        """
        with self._lock:
            try:
                text = protocol.encode_request(Request(operation=operation, arguments=dict(arguments)))
            except ProtocolError as err:
                raise WorkerError(f"the arguments of {operation} cannot be sent: {err}.") from err
            started_s = time.monotonic()
            limit_s = self.limits.timeout_s if timeout_s is None else timeout_s
            self.start()
            child = self._child
            assert child is not None
            try:
                self._send(child, operation, text)
                self._await_answer(child, operation, started_s, limit_s)
                answer = self._take_answer(child, operation)
                if self._environment:
                    self._check_environment()
                return answer
            except EdgewrightError:
                raise
            except BaseException:  # an interrupt above all: the child must not outlive the call
                self._end_child()
                raise

    def close(self) -> None:
        """End the process and free its files; a call under way in another thread raises WorkerError."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._end_child()

    def _check_environment(self) -> None:
        """End the worker and raise when the toolchain has changed its own packages meanwhile."""
        try:
            environments.interpreter(self._environment)
        except EdgewrightError:
            self._end_child()
            raise

    def _send(self, child: ChildProcess, operation: str, text: bytes) -> None:
        self._number += 1
        self._log_mark_bytes = child.log.written_bytes()
        try:
            protocol.write_file(child.folder, protocol.request_name(self._number), text)
        except OSError as err:
            self._end_child()
            raise WorkerError(
                f"the request for {operation} cannot be written: {err.strerror}. Free space in the "
                f"temporary folder."
            ) from err
        try:
            os.write(child.request_fd, b"%d\n" % self._number)
        except BrokenPipeError as err:
            raise self._crash(child, operation) from err

    def _await_answer(self, child: ChildProcess, operation: str, started_s: float, limit_s: float) -> None:
        """Return when the child has announced the answer; raise WorkerError and kill it at a limit."""
        expected = b"%d\n" % self._number
        received = b""
        poller = select.poll()
        poller.register(child.notify_fd, select.POLLIN)
        while received != expected:
            now_s = time.monotonic()
            left_s = started_s + limit_s - now_s
            if left_s <= 0:
                raise self._kill(f"{operation} did not finish within {limit_s:g} s and was stopped")
            if now_s - self._memory_looked_s >= _MEMORY_POLL_S:
                self._look_at_memory(child, operation)
            if poller.poll(1000 * min(_MEMORY_POLL_S, left_s)):
                chunk = os.read(child.notify_fd, protocol.MAX_LINE_BYTES)
                received += chunk
                if not chunk:
                    raise self._crash(child, operation)
                if not expected.startswith(received):
                    raise self._kill(
                        f"protocol: {operation} announced {received!r}, but {expected!r} is expected"
                    )
            elif child.popen.poll() is not None:
                raise self._crash(child, operation)

    def _look_at_memory(self, child: ChildProcess, operation: str) -> None:
        self._memory_looked_s = time.monotonic()
        used = resident_bytes(child.popen.pid)
        if used > self.limits.memory_bytes:
            raise self._kill(
                f"{operation} used {used / 2**20:.0f} MiB of memory and was stopped; the limit is "
                f"{self.limits.memory_bytes / 2**20:.0f} MiB"
            )

    def _take_answer(self, child: ChildProcess, operation: str) -> dict[str, object]:
        try:
            response = protocol.decode_response(
                protocol.take_file(child.folder, protocol.response_name(self._number))
            )
        except ProtocolError as err:
            raise self._kill(f"protocol: the answer of {operation} is {err}") from err
        failure = response.failure
        if failure is None:
            assert response.result is not None
            return response.result
        child.log.add(failure.traceback)
        if failure.is_final:
            self._end_child()
        raise error_from_name(failure.error, _printable(failure.message))

    def _kill(self, reason: str) -> WorkerError:
        self._end_child()
        return WorkerError(f"worker {self.name!r}: {reason}.{self._quoted_log()}")

    def _crash(self, child: ChildProcess, operation: str) -> WorkerError:
        if self._is_closed:
            self._end_child()
            return WorkerError(f"worker {self.name!r} was closed while {operation} ran.")
        try:
            child.popen.wait(1)  # the pipe closes a little before the exit code is there
        except subprocess.TimeoutExpired:
            return self._kill(f"protocol: {operation} closed the pipe of the worker")
        code = self._end_child()
        return WorkerError(
            f"worker {self.name!r} crashed in {operation}: {signal_name(code)}, no answer."
            f"{self._quoted_log()}"
        )

    def _end_child(self) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        code = child.end()
        self._last_log = child.log.text()
        self._last_words = child.log.text(since_bytes=self._log_mark_bytes)
        return code

    def _quoted_log(self) -> str:
        quoted = _last_lines(self._last_words)
        if not quoted:
            return " It printed nothing."
        return "\nThe end of its log:\n" + "\n".join(f"  {_printable(line)}" for line in quoted)


def call_once(
    operation: str,
    arguments: Mapping[str, object],
    *,
    limits: Limits = DEFAULT_LIMITS,
    env: Mapping[str, str] | None = None,
    environment: str = "",
) -> dict[str, object]:
    """Return what `operation` returns, run in a fresh process; arguments and errors as of Worker."""
    name = operation.rpartition(":")[2]
    with Worker(name, limits=limits, env=env, environment=environment) as worker:
        return worker.call(operation, arguments)


def _printable(text: str) -> str:
    """Return `text` with control characters escaped: a log must not drive the user's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _last_lines(log: str) -> list[str]:
    """Return the last lines of `log`; of a stack that Python dumped at a signal, its innermost calls.

    Such a dump lists the innermost call first, so the end of it would only show how every worker starts.
    """
    lines = [line.rstrip()[:_QUOTED_LINE_CHARACTERS] for line in log.splitlines() if line.strip()]
    dumps = [index for index, line in enumerate(lines) if line.endswith("(most recent call first):")]
    if dumps:
        return lines[max(0, dumps[-1] - 3) : dumps[-1] + 4]
    return lines[-_QUOTED_LOG_LINES:]
