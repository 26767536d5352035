"""`--broker -`: the messages of a topic, one a line, on a stream.

Delivery: what `publish` wrote is with the stream's reader; there are no offsets and no groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, Self

from climatestream.model import Headers


class LineProducer:
    """Writes the values of messages as lines.

    Parameters
    ----------
    stream
        Where they go. A JSON document holds no newline, so a line is a message.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def publish(
        self, keys: Sequence[bytes], values: Sequence[bytes], headers: Headers = ()
    ) -> None:
        """Write messages; keys and headers have no place in a line.

        Raises
        ------
        BrokenPipeError
            The reader has gone.
        """
        del keys, headers
        self._stream.write(b"".join(value + b"\n" for value in values))
        self._written += len(values)

    def flush(self) -> int:
        self._stream.flush()
        return self._written
