"""What the servers last said of the files of a dataset, so that the workflow can start without network.

It is asked again each time that the workflow starts, but for files that are pinned. What cannot be asked counts as
unchanged; the first time, it is an error.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from rewardline.core.errors import UserError
from rewardline.core.files import read_json, write_json
from rewardline.core.settings import Settings, Text
from rewardline.data.remote import object_stores
from rewardline.data.remote.addresses import check_address, is_remote, shown
from rewardline.data.remote.stores import look_up
from rewardline.data.remote.versions import NotReachableError, NotThereError, Version

T = TypeVar("T")
OFFLINE = "HF_HUB_OFFLINE"
"""Environment variable with which nothing is asked, as for data of the hub."""


class Record(Settings):
    """What is known of the files of a dataset."""

    patterns: dict[Text, list[Text]] = Field({})
    """The addresses that each pattern matches."""
    versions: dict[Text, Version] = Field({})
    """By address."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file; an empty one if it is missing or damaged."""
        try:
            return cls.model_validate(read_json(path))
        except (UserError, ValidationError):
            return cls()


def update(path: Path, files: Sequence[str], pinned: Mapping[str, str], ask: bool = True) -> tuple[Record, str | None]:
    """The record of those among `files` that are addresses, written to `path` if it has changed; and a warning.

    `pinned`: SHA-256 by address; what is known once of such a file is not asked again. `ask`: False for a process that
    continues what another has started.

    Raises:
        UserError: an address is wrong, a file is not there, or nothing is known of it.
    """
    addresses = [file for file in files if is_remote(file)]
    for address in addresses:
        check_address(address)
    known = Record.read(path) if addresses else Record()
    asking = _Asking(known, ask)
    patterns = {address: asking.expand(address) for address in addresses if object_stores.is_pattern(address)}
    every = dict.fromkeys(file for address in addresses for file in patterns.get(address, [address]))
    for_now = [address for address in every if not (address in pinned and address in known.versions)]
    with ThreadPoolExecutor(8) as pool:
        asked = dict(zip(for_now, pool.map(asking.look_up, for_now), strict=True))
    versions = {address: asked.get(address) or known.versions[address] for address in every}
    record = Record(patterns=patterns, versions=versions)
    if ask and record != known:
        write_json(path, record.as_json())
    return record, asking.warning


class _Asking:
    """Requests, of which none goes to a server that has not answered one before."""

    def __init__(self, known: Record, ask: bool) -> None:
        self._known = known
        self._ask = ask
        self._offline = os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE")
        self._failed: dict[str, NotReachableError] = {}

    @property
    def warning(self) -> str | None:
        """Why something could not be asked."""
        error = next(iter(self._failed.values()), None)
        return f"{error}. The copy that was fetched before is used" if error else None

    def expand(self, pattern: str) -> list[str]:
        """The addresses that a pattern matches."""
        return self._asked(pattern, object_stores.expand, self._known.patterns.get(pattern))

    def look_up(self, address: str) -> Version:
        """The version of a file."""
        return self._asked(address, look_up, self._known.versions.get(address))

    def _asked(self, address: str, request: Callable[[str], T], known: T | None) -> T:
        if known is not None and (self._offline or not self._ask):
            return known
        if self._offline:
            raise UserError(
                f"{OFFLINE} is set, and {shown(address)} was not fetched before. Unset it, or copy the file"
            )
        host = urlsplit(address).netloc
        try:
            if host in self._failed:
                raise self._failed[host]
            return request(address)
        except NotThereError as error:
            pin = "; to keep its copy, pin it with `sha256`" if known else ""
            raise UserError(f"{error}{pin}") from error
        except NotReachableError as error:
            if known is None:
                raise
            self._failed[host] = error
            return known
