"""The C core against numpy, and its bits on every machine that there is here.

    pixels     200 images of odd sizes, photographs and noise, through seven chains of steps
    sound      100 clips of Speech Commands through three chains
    models     real models behind numpy and behind the C: the best class, boxes after suppression, masks, sound
    bits       the self-tests of eight specifications, built by gcc and clang at three levels, under both sanitizers,
               for arm64 and Cortex-M4 under emulation, and as WebAssembly in Chromium: one digest of every bit

Prints tables and HOLDS, or FAILS. It needs a C compiler; what else is missing is said. Times are not measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.processing import core_targets
from benchmarks.processing.core_specifications import CHAINS, Chain, fixed_plans
from benchmarks.processing.core_subjects import SUBJECTS, Raws
from benchmarks.reporting import conditions, parser_for, print_table, write_json

from edgewright.core.tensors import Array
from edgewright.processing.audio_files import read_audio
from edgewright.processing.c_code import write_core
from edgewright.processing.c_host import CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.c_selftest import write_checks
from edgewright.processing.media import read_image
from edgewright.processing.processor import Processor

IMAGES, CLIPS = 200, 100
FLOAT_BOUND, BYTE_BOUND = 1e-5, 1
RATE_HZ = 16_000


@dataclass
class Compared:
    """Arrays of numpy's and of the core's, one pair after another.

    Attributes:
        away: the most that floats are apart, of the range of numpy's.
        steps: the most that integers are apart.
        equal: pairs without any difference.
        misfits: pairs of another shape.
    """

    count: int = 0
    away: float = 0.0
    steps: int = 0
    equal: int = 0
    misfits: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, wanted: Array, made: Array) -> None:
        """Compare one pair."""
        self.count += 1
        if wanted.shape != made.shape or wanted.dtype != made.dtype:
            self.misfits += 1
            return
        self.equal += int(np.array_equal(wanted, made))
        if not wanted.size:
            return
        apart = np.abs(wanted.astype(np.float64) - made.astype(np.float64)).max()
        if wanted.dtype.kind == "f":
            self.away = max(self.away, float(apart / max(float(np.ptp(wanted)), 1e-12)))
        else:
            self.steps = max(self.steps, int(apart))

    @property
    def holds(self) -> bool:
        """Whether all pairs are within the bounds."""
        return not self.misfits and self.away <= FLOAT_BOUND and self.steps <= BYTE_BOUND


def main() -> int:
    """Run every part; return 0 when each holds."""
    parts: Mapping[str, Callable[[Path, Path], tuple[bool, dict[str, object]]]] = {
        "pixels": pixels, "sound": sound, "models": models, "bits": bits,
    }  # fmt: skip
    parser = parser_for(__doc__)
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be given again")
    options = parser.parse_args()
    record: dict[str, object] = {"conditions": conditions()}
    failed = []
    for name in options.only or parts:
        with tempfile.TemporaryDirectory() as work:
            holds, record[name] = parts[name](options.assets, Path(work))
        if not holds:
            failed.append(name)
    write_json(options.json, record)
    print(f"FAILS: {', '.join(failed)}" if failed else "HOLDS")
    return 1 if failed else 0


def odd_images(assets: Path) -> list[Array]:
    """Return 200 images of odd sizes: every second one a piece of a photograph, the others noise."""
    generator = np.random.default_rng(0)
    folders = (assets / "data/coco-mini/images", assets / "data/coral-images")
    files = [p for f in folders for p in sorted(f.iterdir()) if p.suffix in (".jpg", ".bmp")]
    photographs = [read_image(path) for path in files]
    made: list[Array] = []
    for number in range(IMAGES):
        photograph = photographs[number % len(photographs)]
        height, width = (int(generator.integers(40, side) // 2 * 2 + 1) for side in photograph.shape[:2])
        height, width = min(height, photograph.shape[0]), min(width, photograph.shape[1])
        if number % 2:
            made.append(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
            continue
        top = int(generator.integers(0, photograph.shape[0] - height + 1))
        left = int(generator.integers(0, photograph.shape[1] - width + 1))
        made.append(np.ascontiguousarray(photograph[top : top + height, left : left + width]))
    return made


def pixels(assets: Path, work: Path) -> tuple[bool, dict[str, object]]:
    """Compare what images become."""
    images = odd_images(assets)
    return _chains([c for c in CHAINS if c.raw.kind == "image"], images, work, "200 images of odd sizes")


def sound(assets: Path, work: Path) -> tuple[bool, dict[str, object]]:
    """Compare what clips become."""
    files = sorted((assets / "data/speech-commands").rglob("*.wav"))[:CLIPS]
    clips: list[Array] = [read_audio(path, rate_hz=RATE_HZ) for path in files]
    return _chains([c for c in CHAINS if c.raw.kind == "audio"], clips, work, f"{len(clips)} clips")


def _chains(
    chains: Sequence[Chain], raws: Sequence[Array], work: Path, title: str
) -> tuple[bool, dict[str, object]]:
    rows, record, holds = [], {}, True
    for chain in chains:
        checked = chain.plan()
        c = CProcessor(
            checked, work / chain.name, name=chain.name, options=COptions(max_side=4096, max_rows=1 << 17)
        )
        reference, compared = Processor(checked), Compared()
        for raw in raws:
            given = {chain.raw.name: raw}
            c.set_inputs(given)
            compared.add(next(iter(reference.prepare(given).values())), next(iter(c.prepare().values())))
        rows.append(_row(chain.name, compared))
        record[chain.name] = _values(compared)
        holds &= compared.holds and compared.count == len(raws)
    print_table((title, "compared", "equal", "floats away", "integers away", ""), rows)
    return holds, dict(record)


def models(assets: Path, work: Path) -> tuple[bool, dict[str, object]]:
    """Compare the results of real models; boxes and best classes have to be the same."""
    rows, record, holds = [], {}, True
    for subject in SUBJECTS:
        opened = subject.open(assets)
        if opened is None:
            rows.append((subject.name, "", "", "", "", "its runtime is not installed"))
            continue
        checked, execute = opened
        c = CProcessor(checked, work / subject.name, name=subject.name, options=COptions(max_side=4096))
        reference, compared = Processor(checked), Compared()
        raws: Raws = subject.raws(assets, checked)
        for raw in raws:
            if not subject.is_stream:
                reference.reset()
                c.reset()
            wanted, made = reference.run(raw, execute), c.run(raw, execute)
            for name, array in wanted.items():
                compared.add(array, made[name])
                kind = checked.results[name].kind
                same = array.shape == made[name].shape
                if kind == "classes":
                    same = same and bool(np.array_equal(array[:1, 0], made[name][:1, 0]))
                if kind == "boxes":
                    same = same and bool(np.array_equal(array[:, 5], made[name][:, 5]))
                if not same:
                    compared.wrong.append(name)
        rows.append(_row(subject.name, compared, f"{len(compared.wrong)} other classes or boxes"))
        record[subject.name] = {**_values(compared), "other": len(compared.wrong)}
        holds &= compared.holds and not compared.wrong
    print_table(("real models", "compared", "equal", "floats away", "integers away", ""), rows)
    return holds, dict(record)


def bits(assets: Path, work: Path) -> tuple[bool, dict[str, object]]:
    """Compare the digests of the self-tests on every machine."""
    rows, record, holds = [], {}, True
    for name, (checked, options) in fixed_plans().items():
        core = write_core(checked, work / name, name, options)
        write_checks(core)
        digests = core_targets.digests(core)
        found = {digest for digest in digests.values() if digest is not None}
        missing = [target for target, digest in digests.items() if digest is None]
        rows.append(
            (name, core.arena_bytes, len(digests) - len(missing), " ".join(sorted(found)), ", ".join(missing))
        )
        record[name] = dict(digests)
        holds &= len(found) == 1
    print_table(("self-test", "arena bytes", "targets", "digests", "not run"), rows)
    print(f"targets: {'; '.join(core_targets.TARGETS)}")
    return holds, dict(record)


def _row(name: str, compared: Compared, rest: str = "") -> tuple[object, ...]:
    state = "ok" if compared.holds else "FAILS"
    return (
        name, compared.count, compared.equal, f"{compared.away:.1e}", compared.steps,
        f"{rest}{', ' if rest else ''}{state}",
    )  # fmt: skip


def _values(compared: Compared) -> dict[str, object]:
    return {
        "compared": compared.count, "equal": compared.equal, "away": compared.away, "steps": compared.steps,
        "misfits": compared.misfits,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
