"""The child: answers requests one after another until the parent closes the request pipe.

Imports the standard library alone, and little of it, so that a child is ready in some 50 ms; whatever else an
operation needs it imports itself.
"""

# ruff: noqa: PTH123
from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
from collections.abc import Callable

from edgewright.workers import protocol
from edgewright.workers.protocol import Failure, ProtocolError, Request, Response

_ERRORS_MODULE = "edgewright.core.errors"
_PR_SET_PDEATHSIG = 1

Operation = Callable[[dict[str, object]], object]


def main(request_fd: int, notify_fd: int, folder: str, parent_pid: int) -> None:
    """Serve requests from `folder`, announced on `request_fd`, and announce the answers on `notify_fd`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    faulthandler.enable()  # a segmentation fault leaves the Python stack in the log
    for descriptor in (request_fd, notify_fd):
        os.set_inheritable(descriptor, False)
    _die_with_parent(parent_pid)
    _offer_to_memory_killer()
    operations: dict[str, Operation] = {}
    own_pid = os.getpid()
    with os.fdopen(request_fd, "rb") as requests:
        for line in requests:
            number = int(line)
            response = _answer(folder, number, operations)
            if os.getpid() != own_pid:  # a fork that an operation made has come back here: it has no say
                os._exit(1)
            _send(folder, number, response)
            os.write(notify_fd, b"%d\n" % number)
            if response.failure is not None and response.failure.is_final:
                break


def _die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the parent dies.

    A parent that died before the first call is seen by its process id.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def _offer_to_memory_killer() -> None:
    """Ask the kernel to end this process rather than the parent when the machine runs out of memory."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
        stream.write("1000")


def _answer(folder: str, number: int, operations: dict[str, Operation]) -> Response:
    try:
        request = protocol.decode_request(protocol.take_file(folder, protocol.request_name(number)))
    except ProtocolError as err:
        return _failed("WorkerError", f"request {number} is unreadable: {err}")
    try:
        return _run(request, operations)
    except BaseException as err:  # whatever a vendor library raises, SystemExit included, is an answer
        return _translate(request.operation, err)


def _run(request: Request, operations: dict[str, Operation]) -> Response:
    operation = operations.get(request.operation)
    if operation is None:
        operation = operations[request.operation] = _resolve(request.operation)
    result = operation(request.arguments)
    if not isinstance(result, dict):
        return _failed(
            "WorkerError",
            f"protocol: {request.operation} returned {type(result).__name__}, but a dictionary is expected",
        )
    return Response(result=result)


def _resolve(name: str) -> Operation:
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise LookupError(f"{name!r} is not of the form package.module:function")
    function = getattr(importlib.import_module(module_name), function_name)
    if not callable(function):
        raise TypeError(f"{name!r} is {type(function).__name__}, but a function is expected")
    operation: Operation = function
    return operation


def _translate(operation: str, err: BaseException) -> Response:
    """Return `err` as a failure: our own errors cross by class name, any other by its first line."""
    for cls in type(err).__mro__:
        if cls.__module__ == _ERRORS_MODULE and cls.__name__ != "EdgewrightError":
            return _failed(cls.__name__, str(err), traceback=_traceback_of(err))
    if isinstance(err, MemoryError):
        message = f"{operation} ran out of memory ({_first_line(err)}). Free some, or use a smaller model."
        return _failed("WorkerError", message, traceback=_traceback_of(err), is_final=True)
    if not isinstance(err, Exception):
        message = f"{operation} tried to end the worker process with {_first_line(err)}"
        return _failed("WorkerError", message, traceback=_traceback_of(err), is_final=True)
    return _failed("WorkerError", f"{operation} raised {_first_line(err)}", traceback=_traceback_of(err))


def _first_line(err: BaseException) -> str:
    try:
        lines = str(err).strip().splitlines()
    except Exception:  # a vendor exception whose text cannot be made is still reported, by its class
        lines = []
    return f"{type(err).__name__}: {lines[0][:1000]}" if lines else type(err).__name__


def _traceback_of(err: BaseException) -> str:
    import traceback  # only a failure pays for it

    try:
        return "".join(traceback.format_exception(err))
    except Exception:  # the same vendor exception as above
        return f"{type(err).__name__} without a printable traceback\n"


def _failed(error: str, message: str, *, traceback: str = "", is_final: bool = False) -> Response:
    return Response(failure=Failure(error=error, message=message, traceback=traceback, is_final=is_final))


def _send(folder: str, number: int, response: Response) -> None:
    try:
        text = protocol.encode_response(response)
    except ProtocolError as err:
        text = protocol.encode_response(
            _failed("WorkerError", f"protocol: the result of the operation holds {err}")
        )
    protocol.write_file(folder, protocol.response_name(number), text)
