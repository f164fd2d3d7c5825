"""Supply-chain audit of this environment: one JSON line a case, exit 1 if any failed.

* every line of the locks carries a hash, and what is installed is what is locked;
* no package and no bundled native library is below the floor of a known vulnerability, unless
  `requirements/waivers.json` waives that version until a date;
* pip-audit finds no advisory for the locked versions. Without its index it fails, it does not
  pass: pip-audit alone prints "No known vulnerabilities" after skipping everything.

`--offline` leaves out the last step and says so.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"

FLOORS = {
    "torch": "2.10",  # CVE-2026-24747, code execution in spite of weights_only
    "numcodecs": "0.16.6",  # a pickle codec named in a store ran
    "pillow": "12.2.0",
    "starlette": "1.3.1",
    "python-multipart": "0.0.27",
    "transformers": "5.3.0",  # CVE-2026-4372
    "ros-fastrtps": "2.14.6",
}
"""Distribution -> first release without the advisories known to us."""

BUNDLED = {
    "libavcodec": "62.28",  # FFmpeg 8.1
    "libcrypto": "3.0",  # OpenSSL
}
"""Native library inside a wheel -> the same."""


@dataclass(frozen=True)
class Case:
    """Outcome of one check."""

    case: str
    found: str
    wanted: str
    ok: bool
    note: str = ""


def locked(lock: Path) -> dict[Requirement, int]:
    """Requirements of a lock file and the number of hashes of each."""
    found: dict[Requirement, int] = {}
    current = None
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("--hash="):
            assert current is not None
            found[current] += 1
        elif line and not line.startswith(("#", " ")):
            current = Requirement(line.rstrip("\\ "))
            found[current] = 0
    return found


def check_lock(lock: Path) -> Iterator[Case]:
    """Hashes, and installed versions equal to the locked ones."""
    needs = locked(lock)
    bare = sorted(need.name for need, hashes in needs.items() if not hashes)
    yield Case(f"lock/{lock.name}/hashes", " ".join(bare) or "all", "all", not bare)
    wrong = []
    for need in needs:
        if need.marker and not need.marker.evaluate():
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            version = "none"
        if version == "none" or version not in need.specifier:
            wrong.append(f"{need.name} {version}")
    yield Case(
        f"lock/{lock.name}/installed", " ".join(wrong) or "as locked", "as locked", not wrong
    )


def version_of(library: str) -> Version:
    """Version in a library's file name; OpenSSL's patch letter counts as a number."""
    match = re.search(r"\.so\.(\d[\d.]*)([a-z]?)$", library)
    if match is None:
        raise ValueError(f"library must end in .so.VERSION, got {library!r}")
    letter = f".{ord(match[2]) - 96}" if match[2] else ""
    return Version(match[1] + letter)


def bundled(site: Path) -> Iterator[tuple[str, str, Version]]:
    """(wheel, library, version) of the native libraries that wheels carry and BUNDLED names."""
    for folder in sorted(site.glob("*.libs")):
        for file in sorted(folder.iterdir()):
            name = file.name.partition("-")[0].partition(".")[0]
            if name in BUNDLED:
                wheel = folder.name.removesuffix(".libs").replace("_", "-")
                yield wheel, name, version_of(file.name)


def waived(case: str, version: str, waivers: list[dict[str, str]], today: date) -> str:
    """Reason of a waiver that holds today for this very version, or an empty string."""
    for waiver in waivers:
        if re.fullmatch(waiver["case"], case) and waiver["version"] == version:
            if date.fromisoformat(waiver["until"]) >= today:
                return f"waived until {waiver['until']}: {waiver['reason']}"
    return ""


def check_floors(waivers: list[dict[str, str]], site: Path, today: date) -> Iterator[Case]:
    """Installed distributions and bundled libraries against their floors."""
    rows = []
    for name, floor in FLOORS.items():
        try:
            rows.append((f"floor/{name}", Version(metadata.version(name)), floor))
        except metadata.PackageNotFoundError:
            continue
    for wheel, library, version in bundled(site):
        rows.append((f"bundled/{wheel}/{library}", version, BUNDLED[library]))
    for case, found, floor in rows:
        ok = found >= Version(floor)
        note = "" if ok else waived(case, str(found), waivers, today)
        yield Case(case, str(found), f">={floor}", ok or bool(note), note)


def check_advisories(lock: Path) -> Case:
    """pip-audit over one lock; a dependency that it could not look up fails the case."""
    command = [sys.executable, "-m", "pip_audit", "--strict", "--require-hashes", "--disable-pip"]
    run = subprocess.run(
        [*command, "--progress-spinner", "off", "--requirement", str(lock)],
        capture_output=True,
        text=True,
    )
    last = ([*run.stdout.splitlines(), *run.stderr.splitlines()] or [""])[-1]
    ok = run.returncode == 0
    return Case(f"advisories/{lock.name}", "none" if ok else last, "none", ok)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lock", type=Path, action="append", help="lock file; default all of them")
    parser.add_argument("--waivers", type=Path, default=REQUIREMENTS / "waivers.json")
    parser.add_argument("--offline", action="store_true", help="do not ask for advisories")
    args = parser.parse_args()
    locks = args.lock or sorted(REQUIREMENTS.glob("*.lock"))
    waivers = json.loads(args.waivers.read_text(encoding="utf-8"))
    site = Path(metadata.distribution("numpy").locate_file(""))

    cases = [case for lock in locks for case in check_lock(lock)]
    cases += check_floors(waivers, site, date.today())
    if args.offline:
        cases.append(Case("advisories", "not asked", "none", True, "left out by --offline"))
    else:
        cases += [check_advisories(lock) for lock in locks]
    for case in cases:
        print(json.dumps(asdict(case)))
    failed = sum(not case.ok for case in cases)
    print(json.dumps({"cases": len(cases), "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
