"""Check the types of the page's modules, which their JSDoc states; TypeScript is the checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPESCRIPT = "typescript@5.9.3"
PROJECT = ROOT / "src/climatestream/web/tsconfig.json"


def main() -> int:
    """Run the checker; without npm there is none, and only CI must have it."""
    npm = shutil.which("npm")
    if npm is None:
        print("the page's modules were not checked: there is no npm; apt-get install npm")
        return 1 if os.environ.get("CI") else 0
    command = [npm, "exec", "--yes", f"--package={TYPESCRIPT}", "--", "tsc", "-p", str(PROJECT)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
