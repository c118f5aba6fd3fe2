"""What parent and child say to each other: numbered JSON files, and one line per file on a pipe.

The parent writes `<n>.request.json` into the control folder and the line `<n>` into the request pipe. The
child writes `<n>.response.json` aside, renames it, and writes the line `<n>` into the notification pipe. A
line is sent only when the file behind it is complete. No pickle crosses, and stdout carries nothing, because
vendor libraries print there. This module needs the standard library alone, without pathlib, which costs 3 ms:
the child must start fast.
"""

# ruff: noqa: PTH104, PTH108, PTH118
from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

MAX_MESSAGE_BYTES = 64 << 20
MAX_LINE_BYTES = 32
MAX_TEXT_CHARACTERS = 16 << 10


class ProtocolError(Exception):
    """A message breaks the protocol; the text says how. The parent turns it into a WorkerError."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One operation, "package.module:function", and its JSON arguments."""

    operation: str
    arguments: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an operation gave no result.

    error: name of a class of core.errors. is_final: the child ends itself after this answer.
    """

    error: str
    message: str
    traceback: str = ""
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class Response:
    """The answer to one request: a result, or the failure."""

    result: dict[str, object] | None = None
    failure: Failure | None = None


def request_name(number: int) -> str:
    """Return the name of the file that holds request `number`."""
    return f"{number}.request.json"


def response_name(number: int) -> str:
    """Return the name of the file that holds the response to request `number`."""
    return f"{number}.response.json"


def encode(record: Mapping[str, object]) -> bytes:
    """Return `record` as strict JSON.

    Raises:
        ProtocolError: a value is not JSON, NaN, infinite or nested too deep, or the text exceeds 64 MiB.
    """
    try:
        text = json.dumps(record, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError, UnicodeError) as err:
        raise ProtocolError(
            f"{err}. Only JSON may cross: finite numbers, text, lists and dictionaries; arrays travel as "
            f".npy files"
        ) from err
    if len(text) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"{len(text)} bytes of JSON; at most {MAX_MESSAGE_BYTES} may cross; arrays travel as .npy files"
        )
    return text


def encode_request(request: Request) -> bytes:
    """Return the file contents of `request`, or raise ProtocolError."""
    return encode({"operation": request.operation, "arguments": request.arguments})


def encode_response(response: Response) -> bytes:
    """Return the file contents of `response`, or raise ProtocolError."""
    failure = response.failure
    if failure is None:
        return encode({"result": response.result})
    return encode(
        {
            "error": failure.error,
            "message": failure.message[:MAX_TEXT_CHARACTERS],
            "traceback": failure.traceback[-MAX_TEXT_CHARACTERS:],
            "is_final": failure.is_final,
        }
    )


def decode_request(text: bytes) -> Request:
    """Return the request in `text`, or raise ProtocolError."""
    record = _object_in(text)
    operation, arguments = record.get("operation"), record.get("arguments")
    if not isinstance(operation, str) or not isinstance(arguments, dict):
        raise ProtocolError("a request needs the text 'operation' and the object 'arguments'")
    return Request(operation=operation, arguments=arguments)


def decode_response(text: bytes) -> Response:
    """Return the response in `text`, or raise ProtocolError; the sender is not trusted."""
    record = _object_in(text)
    if set(record) == {"result"}:
        result = record["result"]
        if not isinstance(result, dict):
            raise ProtocolError(f"the result is {type(result).__name__}, but an object is expected")
        return Response(result=result)
    error, message = record.get("error"), record.get("message")
    traceback, is_final = record.get("traceback"), record.get("is_final")
    if not (isinstance(error, str) and isinstance(message, str)):
        raise ProtocolError(
            f"a response with the keys {sorted(record)[:8]}, but 'result' or 'error' is expected"
        )
    if not (isinstance(traceback, str) and isinstance(is_final, bool)):
        raise ProtocolError("an error without the text 'traceback' and the flag 'is_final'")
    return Response(
        failure=Failure(
            error=error[:100],
            message=message[:MAX_TEXT_CHARACTERS],
            traceback=traceback[:MAX_TEXT_CHARACTERS],
            is_final=is_final,
        )
    )


def write_file(folder: str, name: str, text: bytes) -> None:
    """Write `text` to `name` in `folder`, aside first, so that the final name is always complete."""
    aside = os.path.join(folder, f".{name}.part")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)
    os.rename(aside, os.path.join(folder, name))


def take_file(folder: str, name: str) -> bytes:
    """Return the contents of `name` in `folder` and delete it.

    Raises:
        ProtocolError: missing, not a plain file, larger than 64 MiB, or still being written.
    """
    path = os.path.join(folder, name)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ProtocolError(f"{name} is not a plain file")
            if status.st_size > MAX_MESSAGE_BYTES:
                raise ProtocolError(
                    f"{name} has {status.st_size} bytes; at most {MAX_MESSAGE_BYTES} are read"
                )
            chunks = []
            while chunk := os.read(handle, status.st_size + 1):
                chunks.append(chunk)
                if sum(map(len, chunks)) > status.st_size:
                    raise ProtocolError(f"{name} grew while it was read")
        finally:
            os.close(handle)
        os.unlink(path)
    except OSError as err:
        raise ProtocolError(f"{name} cannot be read: {err.strerror}") from err
    return b"".join(chunks)


def _object_in(text: bytes) -> dict[str, object]:
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"not JSON: {err}") from err
    if not isinstance(record, dict):
        raise ProtocolError(f"{type(record).__name__}, but a JSON object is expected")
    return record


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
