"""A Zarr store that counts what is asked of it. Imported with the extra `zarr` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from obstore.store import HTTPStore
from zarr.storage import ObjectStore, WrapperStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from climatestream.sources.zarr_array import Traffic


class CountedStore(WrapperStore[ObjectStore[HTTPStore]]):
    """Reads from an HTTP store, and counts requests and the bytes of their answers."""

    def __init__(self, store: ObjectStore[HTTPStore], traffic: Traffic) -> None:
        super().__init__(store)
        self._traffic = traffic

    def _with_store(self, store: ObjectStore[HTTPStore]) -> Self:
        return type(self)(store, self._traffic)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        with self._traffic.asked():
            found = await self._store.get(key, prototype, byte_range)
        if found is not None:
            self._traffic.size += len(found)
        return found
