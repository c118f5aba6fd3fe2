"""The download size of artifacts: what each takes as `.ewz`, which nobody has to write for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgewright.core.artifact import Artifact
from edgewright.core.errors import EdgewrightError, UnavailableError
from edgewright.core.progress import Progress
from edgewright.ewz import packed_bytes
from edgewright.workers.cache import Cache
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits, Worker

_LIMITS = Limits(timeout_s=600.0)
_OPERATION = "edgewright.measure.download:download_size"


@dataclass(frozen=True, kw_only=True)
class Downloads:
    """Digest of an artifact -> its download size in bytes; `why` says why one is missing."""

    sizes_bytes: dict[str, int] = field(default_factory=dict)
    why: str = ""


def download_sizes(artifacts: Iterable[Artifact], *, cache: Cache, progress: Progress) -> Downloads:
    """Return the download size of each artifact, computed in a worker or known from an earlier build."""
    sizes: dict[str, int] = {}
    unknown = {}
    for artifact in artifacts:
        key = cache.key("download", {"artifact": artifact.sha256})
        step = cache.get("download", key)
        if step is not None:
            sizes[artifact.sha256] = int(str(step.record["bytes"]))
        else:
            unknown[artifact.sha256] = (key, artifact)
    why = ""
    if unknown:
        progress("source", "pack", "running")
        with Worker("pack", limits=limits_from_environment(_LIMITS)) as worker:
            for digest, (key, artifact) in unknown.items():
                files = {name: str(file) for name, file in zip(artifact.names, artifact.files, strict=True)}
                try:
                    answer = worker.call(_OPERATION, {"files": files})
                except UnavailableError as err:
                    why = f"download size not known: {err}"
                    break
                except EdgewrightError as err:
                    why = f"download size not known: {err}"
                    continue
                sizes[digest] = int(str(answer["bytes"]))
                cache.put("download", key, answer)
        progress("source", "pack", "done")
    return Downloads(sizes_bytes=sizes, why=why)


def download_size(arguments: dict[str, object]) -> dict[str, object]:
    """Worker operation: {"files": {name: path}} -> {"bytes"}."""
    files = arguments["files"]
    assert isinstance(files, dict)
    return {"bytes": packed_bytes({str(name): Path(str(path)) for name, path in files.items()})}
