"""Folders that stages write: files and a manifest with their hashes; and work that is not repeated.

Snakemake deletes the declared output of a stage, which is the manifest, before it starts the stage again. A hidden copy
of the manifest therefore stays beside the files, with the key that it was written under, which covers all that the
result depends on. If the key is the same and no file has changed, the manifest is restored and nothing is computed. The
manifest itself does not hold the key: equal results have equal manifests, so that stages that read them do not rerun.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import atomic_folder, read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.provenance import code_digest
from rewardline.core.settings import JsonObject, Settings

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """Base of the manifests of stages; unknown keys of a file are ignored."""

    model_config = ConfigDict(frozen=True)
    sha256: dict[str, str] = Field({}, exclude=True)
    """Hash of each file, by its path in the folder; `write_manifest` computes those that a new manifest lacks."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest in a file.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path} is damaged ({first_line(error)}); delete its folder and run again") from error

    def as_json(self) -> JsonObject:
        """The manifest as JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def artifact_key(
    settings: Settings, inputs: Mapping[str, JsonValue], module: Path, packages: Iterable[str] = ()
) -> str:
    """A hash of all that a result depends on.

    `inputs`: hashes of the files that are read (see `input_hashes`), and options, by name; `module`: computes the
    result, and counts with all modules that it imports but those of `core`, which do not change results; `packages`:
    installed packages whose version matters.
    """
    parts = {
        "settings": settings.as_json(),
        "inputs": dict(inputs),
        "code": code_digest(module, without=("core",)),
        "versions": {name: version(name) for name in packages},
    }
    return digest(canonical(parts))


def input_hashes(paths: Iterable[Path]) -> list[JsonValue]:
    """The path and SHA-256 of each file, for `artifact_key`."""
    return [f"{path} {file_sha256(path)}" for path in paths]


def make_folder(folder: Path, key: str, build: Callable[[Path], Manifest], name: str = MANIFEST) -> None:
    """Have `build` write a folder, unless it was written under the same key; `name` is the file of its manifest."""
    if not restored(folder, key, name):
        with atomic_folder(folder) as out:
            write_manifest(out, build(out), key, name)


def write_manifest(folder: Path, manifest: Manifest, key: str | None = None, name: str = MANIFEST) -> None:
    """Write a manifest, with the SHA-256 of every file in the folder, and its copy."""
    sha256 = {file: manifest.sha256.get(file) or file_sha256(folder / file) for file in _files(folder, name)}
    content = {**manifest.as_json(), "sha256": sha256}
    write_json(folder / name, content)
    write_json(folder / f".{name}", {"key": key, "manifest": content})


def restored(folder: Path, key: str, name: str = MANIFEST) -> bool:
    """Whether a folder was written under `key` and is complete; its manifest is then restored."""
    try:
        copy = read_json(folder / f".{name}")
        if copy["key"] != key:
            return False
        hashes = copy["manifest"]["sha256"]
    except (UserError, KeyError, TypeError):
        return False
    if hashes != {file: file_sha256(folder / file) for file in _files(folder, name)}:
        log.warning("%s is damaged and is written again", folder)
        return False
    write_json(folder / name, copy["manifest"])
    log.info("%s is up to date: nothing that it depends on has changed", folder)
    return True


def _files(folder: Path, name: str) -> list[str]:
    """Paths in a folder of all its files but the manifest and its copy."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path not in (name, f".{name}")]
