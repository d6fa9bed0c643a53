"""Folders that stages leave: files and a manifest with their hashes, and work that is not done again.

A stage that is started again deletes its declared output first, which is the manifest. A copy of it therefore stays
beside the files, with the key that it was made under, which covers all that the result depends on. Where the key is the
same and every file is as it was, the manifest is restored and nothing is computed. The manifest itself does not hold
the key: equal results have equal manifests, so that what reads them need not run again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.provenance import code_digest
from rewardline.core.settings import JsonObject, Settings

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """The base of what stages write to a manifest for others to read; keys of a file that a model lacks are ignored."""

    model_config = ConfigDict(frozen=True)
    sha256: dict[str, str] = Field({}, exclude=True)
    """Hash of each file of the folder, by its path in it, as far as it is known; `write_manifest` writes all."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest in a file.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join([".".join(map(str, first["loc"])), first["msg"]])
            raise UserError(f"{path} is damaged ({problem}); delete its folder and run again") from error

    def as_json(self) -> JsonObject:
        """The manifest as JSON values."""
        return self.model_dump(mode="json")


def artifact_key(
    settings: Settings, inputs: Mapping[str, JsonValue], module: Path, packages: Iterable[str] = ()
) -> str:
    """A key of all that a result depends on.

    `inputs`: hashes of what is read (see `input_hashes`), and options, by name; `module`: what computes the result,
    with all modules behind it but those of `core`, which change no result; `packages`: installed packages whose version
    matters.
    """
    parts = {
        "settings": settings.as_json(),
        "inputs": dict(inputs),
        "code": code_digest(module, without=("core",)),
        "versions": {name: version(name) for name in packages},
    }
    return digest(canonical(parts))


def input_hashes(paths: Iterable[Path]) -> list[JsonValue]:
    """The path and SHA-256 of each file, for the key of what is made of them."""
    return [f"{path} {file_sha256(path)}" for path in paths]


def write_manifest(
    folder: Path,
    facts: Mapping[str, JsonValue],
    key: str | None = None,
    name: str = MANIFEST,
    known: Mapping[str, str] | None = None,
) -> None:
    """Write `facts` and the SHA-256 of every file in `folder` to its manifest, the file `name`.

    `known`: hashes of files that need not be computed again.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in _files(folder, name)}
    sha256 = {file: (known or {}).get(file) or file_sha256(path) for file, path in paths.items()}
    manifest = {**facts, "sha256": sha256}
    write_json(folder / name, manifest)
    write_json(_copy(folder, name), {"key": key, "manifest": manifest})


def make_folder(folder: Path, key: str, build: Callable[[Path], Manifest], name: str = MANIFEST) -> None:
    """Make a folder and its manifest, the file `name`, with `build`, unless it was made under `key`."""
    if not restored(folder, key, name):
        with atomic_folder(folder) as out:
            manifest = build(out)
            write_manifest(out, manifest.as_json(), key, name, manifest.sha256)


def restored(folder: Path, key: str, name: str = MANIFEST) -> bool:
    """Whether a folder was made under `key` and is complete; its manifest, the file `name`, is then restored."""
    try:
        copy: JsonObject = read_json(_copy(folder, name))
        manifest = copy["manifest"]
        hashes = manifest["sha256"] if isinstance(manifest, dict) else None
    except (UserError, KeyError, TypeError):
        return False
    if copy.get("key") != key:
        return False
    if hashes != {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder, name)}:
        log.warning("%s is damaged; it is made again", folder)
        return False
    write_json(folder / name, manifest)
    log.info("%s is up to date: nothing that it depends on has changed", folder)
    return True


def _copy(folder: Path, name: str) -> Path:
    return folder / f".{name}"


def _files(folder: Path, name: str) -> list[Path]:
    left_out = folder / name, _copy(folder, name)
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in left_out]
