"""Whatever bytes a child leaves behind, the parent gets a response or a ProtocolError."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.workers import protocol
from edgewright.workers.protocol import Failure, ProtocolError, Request, Response

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
WITHOUT_FIXTURE_CHECK = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


@WITHOUT_FIXTURE_CHECK
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_a_result_comes_back_as_it_was(result: dict[str, object]) -> None:
    assert protocol.decode_response(protocol.encode_response(Response(result=result))) == Response(
        result=result
    )
    request = Request(operation="a:b", arguments=result)
    assert protocol.decode_request(protocol.encode_request(request)) == request


@WITHOUT_FIXTURE_CHECK
@given(st.text(max_size=50), st.text(), st.booleans())
def test_a_failure_comes_back_as_it_was(error: str, message: str, is_final: bool) -> None:
    response = Response(failure=Failure(error=error, message=message, traceback=message, is_final=is_final))
    assert protocol.decode_response(protocol.encode_response(response)) == response


@WITHOUT_FIXTURE_CHECK
@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_break_the_reader(text: bytes) -> None:
    for decode in (protocol.decode_response, protocol.decode_request):
        with pytest.raises(ProtocolError):
            decode(text)


def test_long_texts_of_a_failure_are_cut() -> None:
    failure = Failure(error="UsageError", message="m" * 100_000, traceback="a" * 100_000 + "the end")
    received = protocol.decode_response(protocol.encode_response(Response(failure=failure))).failure
    assert received is not None
    assert len(received.message) == len(received.traceback) == protocol.MAX_TEXT_CHARACTERS
    assert received.traceback.endswith("the end")


def test_a_file_appears_complete_and_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "control"
    folder.mkdir()
    protocol.write_file(str(folder), "1.request.json", b"text")
    assert [path.name for path in folder.iterdir()] == ["1.request.json"]
    assert protocol.take_file(str(folder), "1.request.json") == b"text"
    assert list(folder.iterdir()) == []
    with pytest.raises(ProtocolError, match=r"1\.request\.json cannot be read: No such file"):
        protocol.take_file(str(folder), "1.request.json")
