"""Check what a wheel holds: all that runs, and nothing that does not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

SHIPPED = ("engine/", "dashboard/", "assets/")
ROOT = Path(__file__).parent.parent


def missing_and_extra(wheel: Path) -> tuple[set[str], set[str]]:
    """Files of the shipped folders that the wheel lacks, and what else it holds."""
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SHIPPED],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    wanted = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    return wanted - held, held - wanted


if __name__ == "__main__":
    missing, extra = missing_and_extra(Path(sys.argv[1]))
    for name in sorted(missing):
        print(f"The wheel lacks {name}.")
    for name in sorted(extra):
        print(f"The wheel holds {name}, which is none of {', '.join(SHIPPED)}.")
    if missing or extra:
        sys.exit(1)
    size = Path(sys.argv[1]).stat().st_size / 2**20
    print(
        f"{Path(sys.argv[1]).name}: {size:.1f} MiB, all files of {', '.join(SHIPPED)} and no other"
    )
