"""The step "entropy": every runtime's artifact of the last program, packed losslessly for the download."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgewright.compress.passes import Bench, Compressed
from edgewright.core.artifact import Artifact
from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program


@dataclass(frozen=True, kw_only=True)
class EntropyOptions:
    """There is nothing to choose: the container takes the shortest coding of each tensor."""


class EntropyPass:
    """Leaves the program as it is; the driver packs its artifacts, which exist after the last pass only."""

    name = "entropy"
    summary = "pack each runtime's artifact into a lossless .ewz container, for the download"
    precisions: tuple[str, ...] = ("fp32", "fp16", "w8", "w8a8", "w4a8")
    Options = EntropyOptions

    def run(self, program: Program, options: EntropyOptions, bench: Bench) -> Compressed:
        """Return `program` unchanged."""
        return Compressed(program=program, facts={}, tables={})


PASS = EntropyPass()


def pack_artifact(arguments: dict[str, object]) -> dict[str, object]:
    """Worker operation: pack an artifact into a `.ewz`, and check that it comes out byte by byte.

    Args:
        arguments: {"artifact": record, "out": the container's path}.
    Returns:
        {"packed_bytes", "rows": what each range of weights takes}.
    Raises:
        UnavailableError: numba or zstandard is not installed.
        IntegrityError: the artifact changed meanwhile, or does not come out as it went in.
    """
    from edgewright.ewz import pack, unpack

    record = arguments["artifact"]
    assert isinstance(record, dict)
    artifact, out = Artifact.from_json(record), Path(str(arguments["out"]))
    artifact.verify_digest()
    report = pack(artifact.shown_path, out)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        unpack(out, Path(folder), limit_bytes=report.source_bytes)
        for name, file in zip(artifact.names, artifact.files, strict=True):
            copy = Path(folder, name)
            if not copy.is_file() or sha256_of(copy) != sha256_of(file):
                raise IntegrityError(
                    f"{name} does not come out of {out.name} as it went in. This is a bug of ours."
                )
    rows = [
        {
            "weights": one.name or "(no name)",
            "symbols": one.kind,
            "bytes": one.size_bytes,
            "entropy bound": round(one.entropy_bytes, 1),
            "coded": round(one.coded_bytes, 1),
        }
        for one in report.ranges
    ]
    return {"packed_bytes": report.packed_bytes, "rows": rows}
