"""Files in S3 and Google Cloud Storage, through fsspec; credentials are those that its packages find."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from rewardline.core.errors import UserError
from rewardline.data.remote.addresses import scheme
from rewardline.data.remote.versions import NotReachableError, NotThereError, Version

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_BLOCK: Final = 8 << 20
_PACKAGES: Final = {"s3": "s3fs", "gs": "gcsfs"}
_CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE,",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_TIMEOUTS: Final = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 2}}
_PATTERN: Final = re.compile(r"[*?[]")


def is_pattern(address: str) -> bool:
    """Whether an address names several objects."""
    return scheme(address) in _PACKAGES and _PATTERN.search(address) is not None


def expand(pattern: str) -> list[str]:
    """The addresses of the objects that a pattern matches, sorted; raises as `open_file`."""
    with _filesystem(pattern) as system:
        found = system.glob(pattern, detail=True)
    paths = sorted(path for path, facts in found.items() if facts["type"] == "file" and not path.endswith("/"))
    if not paths:
        raise NotThereError(f"{pattern} matches no object; correct it")
    return [f"{scheme(pattern)}://{path}" for path in paths]


def look_up(address: str) -> Version:
    """The version of an object; raises as `open_file`."""
    with _filesystem(address) as system:
        facts = system.info(address)
    if facts["type"] != "file":
        raise UserError(f"{address} is a folder; name its files, as in {address.rstrip('/')}/*.jsonl")
    # The etag of Google's store changes with the object's metadata too.
    tag = facts.get("ETag") or facts.get("md5Hash") or facts.get("crc32c") or facts.get("etag")
    return Version(etag=tag, size=facts["size"])


@contextmanager
def open_file(address: str, start: int, state: Version) -> Iterator[tuple[int, Iterator[bytes]]]:
    """`start`, and blocks of bytes from there on; the caller compares the version before and after.

    Raises:
        UserError: the package of the store is not installed.
        NotThereError, NotReachableError: also while blocks are read.
    """
    yield start, _blocks(address, start, state.size or 0)


def _blocks(address: str, start: int, size: int) -> Iterator[bytes]:
    with _filesystem(address) as system:
        for begin in range(start, size, _BLOCK):
            yield system.cat_file(address, start=begin, end=min(begin + _BLOCK, size))


@contextmanager
def _filesystem(address: str) -> Iterator["AbstractFileSystem"]:
    """The client of a store, without caches; its errors become errors with a remedy."""
    kind = scheme(address)
    try:
        import fsspec

        options = {"config_kwargs": _TIMEOUTS, "anon": _is_anonymous()} if kind == "s3" else {}
        system = fsspec.filesystem(kind, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        package = _PACKAGES[kind]
        raise UserError(
            f"{address} needs the package {package}, which is not installed; run: pip install {package}{_same_fsspec()}"
        ) from error
    try:
        yield system
    except FileNotFoundError as error:
        raise NotThereError(f"{address} is not there; correct the name of the bucket or the object") from error
    except UserError:
        raise
    except Exception as error:  # of half a dozen libraries, without a common class
        what = type(error).__name__
        if isinstance(error, PermissionError) or "Credential" in what or getattr(error, "code", 0) in (401, 403):
            raise NotReachableError(
                f"{address}: access is refused ({what}). Set {_CREDENTIALS[kind]} in the environment to an account "
                "that may read it"
            ) from error
        raise NotReachableError(
            f"{address} cannot be reached ({what}). Check the network and the settings of the store in the environment,"
            " or copy the file here and write its path"
        ) from error


def _same_fsspec() -> str:
    """What has pip leave fsspec as it is, which `datasets` needs too."""
    with suppress(PackageNotFoundError):
        return f" fsspec=={version('fsspec')}"
    return ""


@cache
def _is_anonymous() -> bool:
    """Whether the environment has no credentials for S3, where public buckets alone can be read."""
    from botocore.session import Session

    return Session().get_credentials() is None
