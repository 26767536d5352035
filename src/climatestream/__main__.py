"""`climatestream` from first to last: a signal ends it with 130, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from climatestream.interrupt import EXIT_CODE


def main() -> NoReturn:
    """Run the command line.

    A signal raises KeyboardInterrupt, unless a command handles it in its own way; while modules
    are imported, and once the command is done, it ends the process at once.
    """
    _on_signals(lambda *_: os._exit(EXIT_CODE))
    from climatestream import cli

    code: object = EXIT_CODE
    try:
        _on_signals(signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:
        pass
    except SystemExit as ended:
        code = ended.code
    _on_signals(lambda *_: os._exit(EXIT_CODE))
    if code == EXIT_CODE:
        # where the interrupt came while an extension's own code ran, Python would not end with
        # this code but by SIGINT, though the interrupt was handled
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(EXIT_CODE)
    sys.exit(code)  # type: ignore[arg-type]  # as it was given to sys.exit before


def _on_signals(handler: Callable[..., object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


if __name__ == "__main__":
    main()
