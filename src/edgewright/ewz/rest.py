"""What is no weight: the graph, names and everything else of a frame, in one piece by zstd."""

from __future__ import annotations

from enum import IntEnum

from edgewright.core.errors import IntegrityError
from edgewright.ewz.container import FRAME_BYTES

_LEVEL = 22
_TRIAL_LEVEL = 9


class Method(IntEnum):
    """How the rest of a frame is stored."""

    RAW = 0
    ZSTD = 1  # one zstd frame without magic number, content size, checksum and dictionary id


def pack_rest(rest: bytes) -> tuple[Method, bytes]:
    """Return the smallest of the ways to store `rest`."""
    import zstandard as zstd

    parameters = zstd.ZstdCompressionParameters.from_level(
        _LEVEL,
        source_size=len(rest),
        format=zstd.FORMAT_ZSTD1_MAGICLESS,
        write_checksum=0,
        write_content_size=0,
        write_dict_id=0,
    )
    packed = zstd.ZstdCompressor(compression_params=parameters).compress(rest) if rest else b""
    return (Method.ZSTD, packed) if len(packed) < len(rest) else (Method.RAW, rest)


def trial_bytes(content: bytes) -> int:
    """Return about how many bytes `content` would add to the rest."""
    import zstandard as zstd

    return len(zstd.ZstdCompressor(level=_TRIAL_LEVEL, write_content_size=False).compress(content)) - 8


def unpack_rest(method: int, packed: bytes, size: int) -> bytes:
    """Return the `size` bytes, at most a frame, that `pack_rest` was given.

    Raises:
        IntegrityError: it makes other than `size` bytes.
    """
    import zstandard as zstd

    assert size <= FRAME_BYTES
    rest = packed
    if method == Method.ZSTD:
        decoder = zstd.ZstdDecompressor(max_window_size=FRAME_BYTES, format=zstd.FORMAT_ZSTD1_MAGICLESS)
        try:
            # As a stream: a frame may promise any size of content, and the memory for it would be taken at once.
            with decoder.stream_reader(packed) as stream:
                rest = stream.read(size + 1)
        except zstd.ZstdError as err:
            raise IntegrityError(f"the rest of a frame is not what zstd wrote: {err}") from err
    elif method != Method.RAW:
        raise IntegrityError(f"the rest of a frame is stored by the unknown method {method}")
    if len(rest) != size:
        raise IntegrityError(f"the rest of a frame has {len(rest)} bytes, but {size} are promised")
    return rest
