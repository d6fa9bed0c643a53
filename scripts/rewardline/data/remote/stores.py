"""The state and the bytes of a file, wherever it is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

from rewardline.data.remote import object_stores, web
from rewardline.data.remote.addresses import OBJECT_STORES, scheme
from rewardline.data.remote.versions import Version


def look_up(address: str) -> Version:
    """The version of a file.

    Raises:
        NotThereError, NotReachableError, UserError: with a remedy.
    """
    return object_stores.look_up(address) if _is_object(address) else web.look_up(address)


def open_file(address: str, start: int, version: Version) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
    """The position of the first byte, which is `start` or 0, and blocks of bytes from there on; raises as `look_up`."""
    store = object_stores.open_file if _is_object(address) else web.open_file
    return store(address, start, version)


def _is_object(address: str) -> bool:
    return scheme(address) in OBJECT_STORES
