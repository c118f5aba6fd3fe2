"""What `bundle check` finds in signed bundles for every platform, changed in each way that attacks.py knows.

    bits       one random bit of a random file of each kind: model, golden cases, core, project, texts, manifest
    files      removed, added, swapped, emptied, renamed, links and pipes in their place
    manifests  rewritten with a right digest: paths that leave the folder, keys twice, another signature of the model
    golden     cases that compare nothing or something else, all digests made right again
    signed     changed with all digests made right again: with the maker's key alone
Each must be found (a line that says what is wrong) or refused (an error). A crash counts as not found. Prints a table,
one line that was said for each attack, and HOLDS, or FAILS with what was not found.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.deploy.attacks import FILES, GOLDEN, MANIFESTS, SIGNED, Attack, files_by_kind, flip_bit
from benchmarks.reporting import conditions, parser_for, print_table, write_json

from edgewright.core.errors import EdgewrightError
from edgewright.deploy import registry
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle

_GROUPS = {"files": FILES, "manifests": MANIFESTS, "golden": GOLDEN, "signed": SIGNED}


@dataclass
class Tally:
    """Of one attack or kind of file: how often it was tried and found, and what was said once."""

    what: str
    tried: int = 0
    found: int = 0
    said: str = ""
    missed: list[str] = field(default_factory=list)

    def count(self, said: str, detail: str) -> None:
        """Count what `found_in` said of a bundle in which `detail` was changed."""
        self.tried += 1
        self.found += bool(said)
        self.said = self.said or said
        if not said:
            self.missed.append(detail)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "what": self.what, "tried": self.tried, "found": self.found, "said": self.said, "missed": self.missed,
        }  # fmt: skip


def found_in(folder: Path, key: Path | None) -> str:
    """Return the first line that `bundle check` says against the bundle; empty where it finds nothing or crashes."""
    try:
        checked = check_bundle(folder, key=key)
    except EdgewrightError as err:
        return f"refused: {err}"
    except Exception as err:  # a bug of ours: not found, and said
        print(f"crash: {err!r}", file=sys.stderr)
        return ""
    return next((f"{row.what}: {problem}" for row in checked.rows for problem in row.problems), "")


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Write a pair of keys into `folder`; return the private and the public file."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(
        made.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def flip_all(folder: Path, key: Path, rng: random.Random, count: int) -> list[Tally]:
    """Return, by kind of file, how many of `count` flipped bits were found; the bundle is as before afterwards."""
    tallies = []
    for kind, files in files_by_kind(folder).items():
        tally = Tally(what=kind)
        for number in range(count):
            path = rng.choice(files)
            right = path.read_bytes()
            flip_bit(path, rng)
            try:
                tally.count(found_in(folder, key if number % 2 else None), f"a bit of {path.name}")
            finally:
                path.write_bytes(right)
        tallies.append(tally)
    return tallies


def try_attack(attack: Attack, bundle: Path, key: Path, rng: random.Random, count: int) -> Tally:
    """Return how often the attack was found in `count` copies of the bundle."""
    tally = Tally(what=attack.name)
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
            copy = Path(shutil.copytree(bundle, Path(work) / "bundle"))
            attack.run(copy, rng)
            tally.count(found_in(copy, key if attack.needs_key else None), attack.name)
    return tally


def measure(
    bundle: Path, key: Path, rng: random.Random, *, flips: int, copies: int
) -> dict[str, list[Tally]]:
    """Return the tallies of each group of attacks on the bundle."""
    assert not found_in(bundle, key), "the bundle is wrong before anything was changed"
    groups = {"bits": flip_all(bundle, key, rng, flips)}
    for name, attacks in _GROUPS.items():
        # What is drawn by chance is tried more often.
        often = copies if name == "files" else 1
        groups[name] = [try_attack(attack, bundle, key, rng, often) for attack in attacks]
    return groups


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack bundles of the platforms that the options choose; return the exit code."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--for", dest="platforms", metavar="PLATFORM", action="append", choices=registry.names()
    )
    parser.add_argument(
        "--flips", type=int, metavar="N", default=50, help="bits a kind of file (default: 50)"
    )
    parser.add_argument("--copies", type=int, metavar="N", default=10, help="for files (default: 10)")
    parser.add_argument("--seed", type=int, metavar="N", default=0)
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, list[Tally]]] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        private, public = make_keys(Path(work))
        for platform in options.platforms or registry.names():
            request = BundleRequest(
                source=options.assets / "models/ultraface-slim/version-slim-320.onnx",
                platform=platform,
                name="FaceFinder",
                processing="ultraface",
                samples=(str(options.assets / "data/coral-images/grace_hopper.bmp"),),
                sign=private,
            )
            print(f"{platform}: make, then change", file=sys.stderr, flush=True)
            try:
                folder = make_bundle(request, Path(work) / platform).folder
            except EdgewrightError as err:
                left_out[platform] = str(err)
                continue
            rng = random.Random(options.seed)
            found[platform] = measure(folder, public, rng, flips=options.flips, copies=options.copies)
    holds = _report(found, left_out)
    record = {
        "conditions": conditions(),
        "seed": options.seed,
        "holds": holds,
        "left_out": left_out,
        "platforms": {
            platform: {name: [tally.to_json() for tally in tallies] for name, tallies in groups.items()}
            for platform, groups in found.items()
        },
    }
    write_json(options.json, record)
    return 0 if holds else 1


def _report(found: dict[str, dict[str, list[Tally]]], left_out: dict[str, str]) -> bool:
    rows = [
        (
            platform,
            *(
                f"{sum(t.found for t in tallies)} of {sum(t.tried for t in tallies)}"
                for tallies in groups.values()
            ),
        )
        for platform, groups in found.items()
    ]
    print_table(("found in a bundle for", "bits", *_GROUPS), rows)
    for groups in list(found.values())[:1]:
        for name, tallies in groups.items():
            print(f"\n{name}")
            for tally in tallies:
                print(f"  {tally.what}: {' '.join(tally.said.split())[:150]}")
    for platform, why in left_out.items():
        print(f"\n{platform}: left out: {why}")
    missed = [
        f"{platform}: {tally.what}: {text}"
        for platform, groups in found.items()
        for tallies in groups.values()
        for tally in tallies
        for text in tally.missed
    ]
    print("\nHOLDS" if found and not missed else "\nFAILS\n" + "\n".join(missed or ["no bundle was made"]))
    return bool(found) and not missed


if __name__ == "__main__":
    sys.exit(main())
