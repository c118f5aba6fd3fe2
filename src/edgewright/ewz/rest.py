"""What is no weight: the graph, names and everything else of a frame, in one piece by zstd."""

from __future__ import annotations

import lzma
from enum import IntEnum

from edgewright.core.errors import IntegrityError
from edgewright.ewz.container import FRAME_BYTES

_LEVEL = 22
_TRIAL_LEVEL = 9
# Short ranges are biases and scales, of which LZMA makes less than this trial; of long ones it does not.
_SHORT_BYTES = 1 << 10
_TRIAL_SHARE = 0.92
# (lc, lp, pb): graphs of flatbuffers are tables of 4-byte numbers, those of protobuf and XML are not.
_PROPERTIES = ((3, 0, 0), (0, 2, 2), (0, 2, 0), (2, 0, 2), (0, 0, 0))
# The decoder in C has no zstd: it is taken where it saves more than this.
_ZSTD_BYTES = 64
_ALL_TRIED_BYTES = 1 << 20
# Of what is short every combination of these is tried too: a few bytes of it are much.
_SHORT_REST_BYTES = 1 << 14
_SHORT_MATCH = 32  # long enough not to look for a better one
_SHORT_PROPERTIES = tuple((lc, lp, pb) for lc in range(4) for lp, pb in ((0, 0), (0, 1), (0, 2), (1, 1)))


class Method(IntEnum):
    """How the rest of a frame is stored."""

    RAW = 0
    ZSTD = 1  # one zstd frame without magic number, content size, checksum and dictionary id
    LZMA = 2  # a byte (pb * 5 + lp) * 9 + lc, then an LZMA1 stream with an end mark


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
    made = [(Method.RAW, rest)]
    if rest:
        made.append((Method.ZSTD, zstd.ZstdCompressor(compression_params=parameters).compress(rest)))
        tried: tuple[tuple[int, int, int], ...] = (
            _PROPERTIES if len(rest) <= _ALL_TRIED_BYTES else _PROPERTIES[:1]
        )
        if len(rest) <= _SHORT_REST_BYTES:
            tried = (*tried, *_SHORT_PROPERTIES)
            made += [(Method.LZMA, _lzma(rest, *properties, _SHORT_MATCH)) for properties in tried]
        made += [(Method.LZMA, _lzma(rest, *properties)) for properties in tried]
    return min(made, key=lambda one: len(one[1]) + (_ZSTD_BYTES if one[0] is Method.ZSTD else 0))


def _lzma(rest: bytes, lc: int, lp: int, pb: int, match: int = 273) -> bytes:
    coding = {**_filter(len(rest), lc, lp, pb), "nice_len": match}
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=[coding])
    return bytes([(pb * 5 + lp) * 9 + lc]) + compressor.compress(rest) + compressor.flush()


def _filter(size: int, lc: int, lp: int, pb: int) -> dict[str, int]:
    """Return the filter for `size` bytes; the dictionary is no larger than they are."""
    dictionary = max(4096, 1 << (size - 1).bit_length())
    preset = 9 | lzma.PRESET_EXTREME
    return {"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}


def trial_bytes(content: bytes) -> float:
    """Return about how many bytes `content` would add to the rest."""
    import zstandard as zstd

    packed = zstd.ZstdCompressor(level=_TRIAL_LEVEL, write_content_size=False).compress(content)
    return (len(packed) - 8) * (_TRIAL_SHARE if len(content) < _SHORT_BYTES else 1.0)


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
    elif method == Method.LZMA:
        rest = _unlzma(packed, size)
    if len(rest) != size:
        raise IntegrityError(f"the rest of a frame has {len(rest)} bytes, but {size} are promised")
    return rest


def _unlzma(packed: bytes, size: int) -> bytes:
    properties = packed[0] if packed else 255
    lc, lp, pb = properties % 9, properties // 9 % 5, properties // 45
    if pb > 4 or lc + lp > 4:
        raise IntegrityError(f"the rest of a frame has LZMA properties {properties}, which do not exist")
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=[_filter(size, lc, lp, pb)])
    try:
        rest = decoder.decompress(packed[1:], max_length=size + 1)
    except lzma.LZMAError as err:
        raise IntegrityError(f"the rest of a frame is not what LZMA wrote: {err}") from err
    if not decoder.eof or decoder.unused_data:
        raise IntegrityError("the rest of a frame does not end where its LZMA stream does")
    return rest
