"""How long a NetCDF-3 file must be, from its header.

The NetCDF library takes a file that was cut short for whole and reads zeros past its end.
The layout: https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

from __future__ import annotations

import struct
from math import prod
from typing import BinaryIO

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Bytes of a value, by the number of its type: byte, char, short, int, float, double, and the
unsigned and 64-bit ones of the fifth format."""

STREAMING = {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
"""A count of records that the writer never filled in: as many as the file holds."""


def length_needed(file: BinaryIO) -> int:
    """Bytes up to the end of the last value, padding left aside.

    Raises
    ------
    EOFError
        The header itself is cut short.
    ValueError
        The header is no NetCDF-3 one.
    """
    return _Header(file).length


class _Header:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        magic = self._take(4)
        if magic[:3] != b"CDF" or magic[3] not in {1, 2, 5}:
            raise ValueError(f"starts with {magic!r}, expected CDF and 1, 2 or 5")
        self._count = "Q" if magic[3] == 5 else "I"
        self._offset = "I" if magic[3] == 1 else "Q"
        records = self._number(self._count)
        lengths = [self._dimension() for _ in range(self._list(10))]
        self._attributes()
        ends: list[int] = [0]
        tails: list[tuple[int, int]] = []
        for _ in range(self._list(11)):
            self._name()
            shape = [lengths[self._number(self._count)] for _ in range(self._number(self._count))]
            self._attributes()
            size = TYPE_BYTES.get(self._number("I"))
            if size is None:
                raise ValueError("a variable is of a type that NetCDF-3 does not have")
            self._number(self._count)  # the padded size: its field is too small for large ones
            begin = self._number(self._offset)
            if shape and shape[0] == 0:
                tails.append((begin, size * prod(shape[1:])))
            else:
                ends.append(begin + size * prod(shape))
        ends[0] = file.tell()
        # A lone variable's records follow each other without padding.
        stride = tails[0][1] if len(tails) == 1 else sum(-(-size // 4) * 4 for _, size in tails)
        if tails and records and records not in STREAMING:
            ends += [begin + (records - 1) * stride + size for begin, size in tails]
        self.length = max(ends)

    def _take(self, count: int) -> bytes:
        taken = self._file.read(count)
        if len(taken) < count:
            raise EOFError("the header is cut short")
        return taken

    def _number(self, kind: str) -> int:
        return int(struct.unpack(f">{kind}", self._take(struct.calcsize(f">{kind}")))[0])

    def _list(self, tag: int) -> int:
        """The count of what follows: dimensions, variables or attributes, by their tag."""
        found, count = self._number("I"), self._number(self._count)
        if found not in {0, tag}:
            raise ValueError(f"a list in the header is marked {found}, expected {tag}")
        return count

    def _name(self) -> None:
        self._take(-(-self._number(self._count) // 4) * 4)

    def _dimension(self) -> int:
        self._name()
        return self._number(self._count)

    def _attributes(self) -> None:
        for _ in range(self._list(12)):
            self._name()
            size = TYPE_BYTES.get(self._number("I"))
            if size is None:
                raise ValueError("an attribute is of a type that NetCDF-3 does not have")
            self._take(-(-self._number(self._count) * size // 4) * 4)
