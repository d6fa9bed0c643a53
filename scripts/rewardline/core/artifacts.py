"""Folders that stages leave: files and a manifest with their hashes, and work that is not done again.

A stage that is started again deletes its declared output first, which is the manifest. A copy of it therefore stays
beside the files. Where the copy was made under the same key, which covers all that the result depends on, and every
file is as it was, the manifest is restored and nothing is computed.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import JsonValue

from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy, read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.provenance import code_digest
from rewardline.core.settings import JsonObject, Settings
from rewardline.core.versions import versions

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_COPY = ".manifest.json"


def artifact_key(
    settings: Settings, inputs: Mapping[str, JsonValue], module: Path, packages: Iterable[str] = ()
) -> str:
    """A key of all that a result depends on.

    `inputs`: hashes of what is read, by name; `module`: what computes the result, with all modules behind it but those
    of `core`, which change no result; `packages`: installed packages whose version matters.
    """
    found = versions()
    parts = {
        "settings": settings.as_json(),
        "inputs": dict(inputs),
        "code": code_digest(module, without=("core",)),
        "versions": {name: found[name] for name in packages},
    }
    return digest(canonical(parts))


def write_manifest(folder: Path, facts: Mapping[str, JsonValue], key: str | None = None) -> None:
    """Write `facts`, the key and the SHA-256 of every file in `folder` to its manifest."""
    sha256 = {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}
    write_json(folder / MANIFEST, {**facts, **({} if key is None else {"key": key}), "sha256": sha256})
    link_or_copy(folder / MANIFEST, folder / _COPY)


def restored(folder: Path, key: str) -> bool:
    """Whether a folder was made under `key` and is complete; its manifest is then restored."""
    try:
        manifest: JsonObject = read_json(folder / _COPY)
        hashes = manifest["sha256"]
        made_under = manifest.get("key")
    except (UserError, KeyError, TypeError, AttributeError):
        return False
    if made_under != key:
        return False
    if not isinstance(hashes, dict) or hashes != {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)
    }:
        log.warning("%s is damaged; it is made again", folder)
        return False
    write_json(folder / MANIFEST, manifest)
    log.info("%s is up to date: nothing that it depends on has changed", folder)
    return True


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (MANIFEST, _COPY)]
