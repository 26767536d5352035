"""deploy/.env of the stack: a copy of .env.example with passwords made at random.

One that exists is left as it is: CrateDB's users and Grafana's administrator were made with what
it says. Needs nothing beyond Python.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
PASSWORDS = (
    "CLIMATESTREAM_WRITER_PASSWORD",
    "CLIMATESTREAM_READER_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
)
BYTES = 24
"""Of chance in a password; as text it has no character that a file or a URL would change."""


def make(folder: Path) -> bool:
    """Write .env beside .env.example, for its owner alone; False where there is one."""
    lines = (folder / ".env.example").read_text(encoding="utf-8").splitlines()
    empty = [f"{name}=" for name in PASSWORDS]
    filled = [line + secrets.token_urlsafe(BYTES) if line in empty else line for line in lines]
    try:
        # made with these rights, not given them afterwards
        file = os.open(folder / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(file, "w", encoding="utf-8") as env:
        env.write("\n".join(filled) + "\n")
    return True


def main() -> int:
    """Make it, and say so."""
    made = make(DEPLOY)
    print(f"{DEPLOY / '.env'}: {'made, with new passwords' if made else 'there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
