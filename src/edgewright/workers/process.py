"""One child process: its start, its control folder, its log, and its end with everything it started."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import queue
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from edgewright.workers.memory import tree_of

LOG_TAIL_BYTES = 64 << 10
_FOLDER_PREFIX = "edgewright-worker-"
_STALE_FOLDER_S = 600
# sys.path comes first, so that modules are found as in the parent; `sys` itself is built in.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[5:]; from edgewright.workers.serve import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
)

# In a toolchain's environment nothing of the parent's is on the path but the package itself, loaded from its file:
# its folder may hold the parent's other packages, and they must not meet those of the environment.
_BOOT_ELSEWHERE = (
    "import sys, importlib.util as u; "
    "s = u.spec_from_file_location('edgewright', sys.argv[5] + '/__init__.py', "
    "submodule_search_locations=[sys.argv[5]]); "
    "m = u.module_from_spec(s); sys.modules['edgewright'] = m; s.loader.exec_module(m); "
    "from edgewright.workers.serve import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
)
_PACKAGE = Path(__file__).parent.parent

# Unbuffered holds for C's stdout too: what a library printed before an abort is in the log.
_CHILD_ENV = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}

_living: set[ChildProcess] = set()
_living_lock = threading.Lock()


class ChildProcess:
    """A running child in a session of its own, with the pipes to it; ends with the parent."""

    def __init__(self, env: Mapping[str, str], interpreter: Path | None = None) -> None:
        """Start the child; `env` is added to the parent's environment.

        Args:
            interpreter: a Python of another environment; None is the parent's own, with the parent's path.
        """
        if interpreter is None:
            boot, path = [sys.executable, "-c", _BOOT], [e for e in sys.path if isinstance(e, str)]
        else:
            boot, path = [str(interpreter), "-I", "-c", _BOOT_ELSEWHERE], [str(_PACKAGE)]
        self._ending = threading.Lock()
        self.owner_pid = os.getpid()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as child_side:
            self.folder = tempfile.mkdtemp(prefix=_FOLDER_PREFIX)
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, folder_fd)
            fcntl.flock(folder_fd, fcntl.LOCK_EX)  # as long as this parent lives, nobody sweeps the folder
            request_read, self.request_fd = os.pipe()
            child_side.callback(os.close, request_read)
            undo.callback(os.close, self.request_fd)
            self.notify_fd, notify_write = os.pipe()
            child_side.callback(os.close, notify_write)
            undo.callback(os.close, self.notify_fd)
            log_read, log_write = os.pipe()
            child_side.callback(os.close, log_write)
            log_side = undo.enter_context(contextlib.ExitStack())
            log_side.callback(os.close, log_read)
            self.popen = subprocess.Popen(
                [
                    *boot,
                    *(str(request_read), str(notify_write), self.folder, str(self.owner_pid)),
                    *path,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log_write,
                stderr=log_write,
                pass_fds=(request_read, notify_write),
                start_new_session=True,
                env={**os.environ, **_CHILD_ENV, **env},
            )
            log_side.pop_all()
            self.log = LogTail(log_read)
            self._free = undo.pop_all()
        with _living_lock:
            _living.add(self)

    def kill(self) -> None:
        """Kill the child, its process group and every descendant, at once. Any thread may call it.

        In a fork of the parent it does nothing: the child is not the fork's.
        """
        if self.popen.returncode is not None or self.owner_pid != os.getpid():
            return
        members = tree_of(self.popen.pid)
        self._kill_group()
        for member in members:  # those that moved to a group of their own
            with contextlib.suppress(OSError):
                os.kill(member, signal.SIGKILL)

    def end(self) -> int:
        """Kill what still runs, free pipes and folder, and return the exit code (negative: a signal).

        It may be called again, and does then what an interrupt left undone.
        """
        if self.owner_pid != os.getpid():
            return 0
        with self._ending:
            if self.popen.poll() is None:
                self.kill()
            else:  # it ended by itself, but members of its group may live on
                self._kill_group()
            code = self.popen.wait()
            self.log.finish()
            self._free.close()
            with _living_lock:
                _living.discard(self)
            return code

    def _kill_group(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.popen.pid, signal.SIGKILL)


class LogTail:
    """The last 64 KiB that a child wrote, read by a thread so that the child never blocks on its log."""

    def __init__(self, read_fd: int) -> None:
        """Start reading `read_fd`, which belongs to this object from now on."""
        self._fd = read_fd
        self._tail = b""
        self._written_bytes = 0
        self._is_open = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="edgewright-log", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        while self._is_open:
            poller.poll(500)
            with self._lock:
                if not self._is_open or not self._read_once():
                    break
        with self._lock:
            self._is_open = False
            os.close(self._fd)

    def _read_once(self) -> bool:
        """Move what is in the pipe into the tail; False at its end. The lock is held."""
        if not select.select([self._fd], [], [], 0)[0]:
            return True
        chunk = os.read(self._fd, LOG_TAIL_BYTES)
        self._tail = (self._tail + chunk)[-LOG_TAIL_BYTES:]
        self._written_bytes += len(chunk)
        return bool(chunk)

    def add(self, text: str) -> None:
        """Append `text`, as if the child had printed it last."""
        self.text()
        with self._lock:
            chunk = text.encode(errors="replace")
            self._tail = (self._tail + chunk)[-LOG_TAIL_BYTES:]
            self._written_bytes += len(chunk)

    def written_bytes(self) -> int:
        """Return how many bytes were written up to now: a mark for `text`."""
        with self._lock:
            if self._is_open:
                self._read_once()  # the buffer of a pipe is no larger than one read
            return self._written_bytes

    def text(self, *, since_bytes: int = 0) -> str:
        """Return the tail with all that the child has written up to now, or 1 s of it under a flood.

        since_bytes: leaves out what was written before this mark.
        """
        give_up_s = time.monotonic() + 1
        while True:
            with self._lock:
                if not self._is_open or self._waiting_bytes() == 0 or time.monotonic() > give_up_s:
                    wanted_bytes = self._written_bytes - since_bytes
                    return self._tail[-wanted_bytes:].decode(errors="replace") if wanted_bytes > 0 else ""
                self._read_once()

    def _waiting_bytes(self) -> int:
        answer: bytes = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0" * 4)
        count: int = struct.unpack("i", answer)[0]
        return count

    def finish(self) -> None:
        """Wait for the end of the pipe, 1 s at most: an escaped process may keep it open."""
        self._thread.join(1)
        with self._lock:
            still_open, self._is_open = self._is_open, False
        if still_open:
            self._thread.join(1)


_Answers = queue.SimpleQueue[ChildProcess | BaseException]


class _Starter:
    """Starts every child from one thread that lives as long as the process.

    The kernel's parent-death signal is sent when the *thread* that started a child ends, not the process:
    a worker started by a short-lived thread would be killed with it.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Mapping[str, str], Path | None, _Answers]]
        self._orders = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="edgewright-starter", daemon=True).start()

    def _serve(self) -> None:
        while True:
            env, interpreter, answer = self._orders.get()
            try:
                answer.put(ChildProcess(env, interpreter))
            except BaseException as err:  # handed to the thread that ordered
                answer.put(err)

    def start(self, env: Mapping[str, str], interpreter: Path | None) -> ChildProcess:
        answer: _Answers = queue.SimpleQueue()
        self._orders.put((env, interpreter, answer))
        try:
            started = answer.get()
        except BaseException:  # an interrupt: the child may be on its way already
            late = answer.get()
            if isinstance(late, ChildProcess):
                late.end()
            raise
        if isinstance(started, BaseException):
            raise started
        return started


_starter_lock = threading.Lock()
_starter: tuple[int, _Starter] | None = None


def start_child(env: Mapping[str, str], interpreter: Path | None = None) -> ChildProcess:
    """Return a new child process, see `ChildProcess`; OSError when it cannot be started."""
    global _starter
    with _starter_lock:
        if _starter is None or _starter[0] != os.getpid():  # after a fork the thread is gone
            _sweep_stale_folders()
            _starter = (os.getpid(), _Starter())
        starter = _starter[1]
    return starter.start(env, interpreter)


def end_all() -> None:
    """End every living child of this process; a fork of it leaves them alone."""
    with _living_lock:
        children = [child for child in _living if child.owner_pid == os.getpid()]
    for child in children:
        child.kill()
    for child in children:
        child.end()


def _sweep_stale_folders() -> None:
    """Delete control folders of killed parents: old, ours, and locked by no living process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _STALE_FOLDER_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def signal_name(code: int) -> str:
    """Return how a process ended, in words, from its `code` as subprocess gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (perhaps the system ran out of memory)" if -code == signal.SIGKILL else name


atexit.register(end_all)
