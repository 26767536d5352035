"""`climatestream` from its first moment on: a signal ends it in order, whatever it is at."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from climatestream.interrupt import EXIT_CODE

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> NoReturn:
    """Run the command line.

    While its modules are imported, a signal ends the process without a word; from then on it
    raises KeyboardInterrupt, unless a command handles it in its own way.
    """
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(EXIT_CODE))
    from climatestream import cli

    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
