"""Addresses of files elsewhere: which are known, what they must not hold, and what the file is called."""

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from rewardline.core.errors import UserError

WEB, OBJECT_STORES = ("http", "https"), ("s3", "gs")
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_INSTEAD: Final = {
    "file": "write the path of the file",
    "gcs": "write gs://",
    "s3a": "write s3://",
    "s3n": "write s3://",
    "hf": "name the dataset with `hub:` and `revision:`",
    "hub": "name the dataset with `hub:` and `revision:`",
}
_SECRET: Final = re.compile(
    r"(^|[-_.])(sig|signature|token|secret|password|passwd|pwd|credential|credentials|auth|key|api-?key|access-?key(-?id)?"
    r"|awsaccesskeyid|googleaccessid)$",
    re.IGNORECASE,
)
"""Parameters of an address that grant access, as those of links that are signed."""


def is_remote(file: str) -> bool:
    """Whether an entry of `files` is an address, and not the path of a local file."""
    return _ADDRESS.match(file) is not None


def scheme(address: str) -> str:
    """What an address begins with, in lower case."""
    found = _ADDRESS.match(address)
    return found[1].lower() if found else ""


def check_address(address: str) -> None:
    """Raise `UserError` for an address that is of an unknown kind, names no file, or holds a password or key."""
    kind = scheme(address)
    if kind not in WEB + OBJECT_STORES:
        remedy = _INSTEAD.get(kind, "copy the file here and write its path")
        raise UserError(f"{shown(address)}: {kind}:// is not known; expected https, http, s3 or gs. Else {remedy}")
    if kind in WEB:
        parts = urlsplit(address)
        secrets = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(name)]
        if "@" in parts.netloc or secrets:
            what = f"the parameter {secrets[0]}, which grants access" if secrets else "a user name or password"
            raise UserError(
                f"{shown(address)} has {what}: it would stand in results and logs. Remove it; credentials come from "
                "~/.netrc (or the file NETRC), or write s3:// or gs:// with those of the environment"
            )
        if "*" in parts.path:
            raise UserError(f"{shown(address)} is a pattern, which a web server cannot expand; name each file")
    if not file_name(address):
        raise UserError(f"{shown(address)} names no file; write its complete address")


def file_name(address: str) -> str:
    """The name of the file at an address, without a query."""
    path = urlsplit(address).path if scheme(address) in WEB else address.split("://", 1)[1].partition("/")[2]
    return "" if path.endswith("/") else PurePosixPath(unquote(path)).name


def shown(address: str) -> str:
    """An address as messages show it: without user, password and query."""
    if scheme(address) in OBJECT_STORES:
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
