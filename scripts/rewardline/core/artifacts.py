"""Folders that stages write: files and a manifest with their hashes; and work that is not repeated.

Snakemake deletes the declared output of a stage, which is the manifest, before it starts the stage again. A hidden copy
of the manifest therefore stays beside the files, with the key that it was written under, which covers all that the
result depends on. If the key is the same and no file has changed, the manifest is restored and nothing is computed. The
manifest itself does not hold the key: equal results have equal manifests, so that stages that read them do not rerun.

A manifest holds the end of its own path, so that it is not taken for that of another folder, and ends with a hash of
itself. Whoever reads a file of the folder compares it with its hash first (`verify`).
Damage is a `UserError`; and the manifest is removed, so that the next `snakemake` runs the stage again, which
keeps what is intact.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import atomic_file, atomic_folder, final_name
from rewardline.core.hashing import FileState, canonical, digest, file_sha256, file_state, file_xxh3
from rewardline.core.provenance import code_digest
from rewardline.core.settings import JsonObject, Settings

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_HASH, _FILES, _PATH = "manifest_hash", "xxh3", "manifest_path"
_REMOVED: Final = {"run.json": "README.md"}
"""What is removed in place of a manifest: a model could be scored without its run.json, in another way."""


class Manifest(BaseModel):
    """Base of the manifests of stages; unknown keys of a file are ignored."""

    model_config = ConfigDict(frozen=True, defer_build=True)
    xxh3: dict[str, str] = Field({}, exclude=True)
    """Hash of each file, by its path in the folder; `write_sealed` computes them."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest in a file.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            return cls.model_validate(read_manifest(path))
        except ValidationError as error:
            raise damaged(path, path, first_line(error)) from error

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
    """The path and SHA-256 of each file, for `artifact_key`.

    Raises:
        UserError: a file is missing.
    """
    try:
        return [f"{path} {file_sha256(path)}" for path in paths]
    except FileNotFoundError as error:
        raise _missing(error.filename) from error


def _missing(path: Path | str) -> UserError:
    return UserError(f"{path} does not exist; run the stage that makes it first")


def make_folder(
    folder: Path, key: str, build: Callable[[Path], Manifest], name: str = MANIFEST, linked: Iterable[Path] = ()
) -> None:
    """Have `build` write a folder, unless it was written under the same key; `name` is the file of its manifest.

    `linked`: the manifests of the folders whose files it links; they are damaged together.
    """
    if not restored(folder, key, name):
        with atomic_folder(folder) as out:
            write_manifest(out, build(out), key, name, linked)


def write_manifest(
    folder: Path, manifest: Manifest, key: str | None = None, name: str = MANIFEST, linked: Iterable[Path] = ()
) -> None:
    """Write a manifest, with the hash of every file in the folder, and its copy; `linked` as for `make_folder`."""
    content = write_sealed(folder / name, manifest.as_json(), _files(folder, name), _depth(folder))
    write_sealed(folder / f".{name}", {"key": key, "linked": list(map(str, linked)), "manifest": content})


def _depth(folder: Path) -> int:
    """How many names of folders tell a folder of results from all others; the last may be the number of a shard."""
    return 3 if final_name(folder.name).isdigit() else 2


def write_sealed(path: Path, content: JsonObject, files: Iterable[str] = (), depth: int = 0) -> JsonObject:
    """Write a JSON file that ends with a hash of itself; returns `content` with the hashes of `files` in its folder.

    `depth`: of how many folders it holds the names, and is not read elsewhere; 0 for a file that may be moved.
    """
    content = {**content, **({_PATH: _end(path, depth)} if depth else {})}
    content[_FILES] = {file: file_xxh3(path.parent / file) for file in files}
    body = json.dumps(content, indent=2, ensure_ascii=False).removesuffix("\n}")
    with atomic_file(path) as partial:
        partial.write_text(body + _seal(body), encoding="utf-8")
    return content


def _end(path: Path, depth: int) -> str:
    """The end of a path, with the names of `depth` folders; of one that is being written, its name afterwards."""
    *folders, name = path.absolute().parts[-depth - 1 :]
    return "/".join([*(final_name(folder) for folder in folders), name])


def _seal(body: str) -> str:
    return f',\n  "{_HASH}": "{digest(body)}"\n}}\n'


def read_manifest(path: Path, repair: bool = True) -> Any:
    """The content of a file by `write_sealed`; or of another JSON file, which nothing is known about.

    Raises:
        UserError: it is missing or damaged; `repair` as for `damaged`.
    """
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except ValueError as error:
        raise damaged(path, path, first_line(error), repair) from error
    if isinstance(content, dict) and {_HASH, _FILES} & content.keys():  # one byte cannot remove both
        body = text.rpartition(f',\n  "{_HASH}": ')[0]
        if text != body + _seal(body):
            raise damaged(path, path, repair=repair)
        del content[_HASH]
        if (written := content.pop(_PATH, None)) not in (None, _end(path, str(written).count("/"))):
            raise damaged(path, path, f"it is a copy of {written}", repair)
    return content


def damaged(
    path: Path, manifest: Path, reason: str = "it has changed since it was written", repair: bool = True
) -> UserError:
    """The error for a damaged file. `repair`: whether to have the next `snakemake` make it again."""
    if not repair:
        return UserError(f"{path} is damaged ({reason}). Make it again, or put back a copy of it")
    linked: list[str] = []
    with suppress(UserError, KeyError, TypeError):
        linked = read_manifest(manifest.with_name(f".{manifest.name}"), repair=False)["linked"]
    for removed in (manifest.with_name(_REMOVED.get(manifest.name, manifest.name)), *map(Path, linked)):
        with suppress(OSError):
            removed.unlink()
    return UserError(
        f"{path} is damaged ({reason}). The same `snakemake --cores all ...` command makes it again: run it once more. "
        "Without Snakemake, delete the file and run the stage that makes it"
    )


def verify(path: Path, *names: str) -> None:
    """Compare a file with its hash in the manifest of its folder, or of the one above; `names`: of manifests.

    Without a manifest that holds hashes, nothing is known about a file.

    Raises:
        UserError: it is missing or damaged, or its manifest is.
    """
    for manifest in _manifests(path.parents[:2], names):
        if hashes := _hashes(manifest, file_state(manifest)):
            _compare(path, hashes.get(path.relative_to(manifest.parent).as_posix()), manifest)
        return


def verify_given(path: Path) -> None:
    """As `verify`, a file that a user names, which may be a result of another configuration; nothing is removed."""
    for manifest in _manifests(path.parents[:2], ()):
        hashes: dict[str, str] = {}
        with suppress(UserError):  # the manifest is another tool's, or of a copy
            hashes = _hashes(manifest, file_state(manifest), repair=False)
        if expected := hashes.get(path.relative_to(manifest.parent).as_posix()):
            _compare(path, expected, manifest, repair=False)


def listed(folder: Path, *names: str) -> set[Path]:
    """The files in a folder by its manifest, or by that of the folder above; see `verify`."""
    for manifest in _manifests((folder, folder.parent), names):
        files = map(manifest.parent.joinpath, _hashes(manifest, file_state(manifest)))
        return {file for file in files if file.parent == folder}
    return set()


def _manifests(folders: Iterable[Path], names: Iterable[str]) -> Iterator[Path]:
    paths = (folder / name for folder in folders for name in names or (MANIFEST,))
    return filter(Path.is_file, paths)


def verify_files(manifest: Path, chosen: Callable[[str], bool] = lambda _: True, repair: bool = True) -> bool:
    """As `verify`, all files in a manifest that are `chosen` by their path; whether it holds hashes."""
    hashes = _hashes(manifest, file_state(manifest), repair)
    for file in filter(chosen, hashes):
        _compare(manifest.parent / file, hashes[file], manifest, repair)
    return bool(hashes)


def verify_model(folder: Path, repair: bool = True) -> bool:
    """As `verify_files`, the files of a trained model that scores depend on; False for a model of other origin."""
    facts = folder / "run.json"
    return facts.is_file() and verify_files(facts, lambda file: "/" not in file and file != "log.jsonl", repair)


@lru_cache
def _hashes(manifest: Path, _state: FileState, repair: bool = True) -> dict[str, str]:
    """The hashes of the files in a manifest."""
    content = read_manifest(manifest, repair)
    return content.get(_FILES, {}) if isinstance(content, dict) else {}


def _compare(path: Path, expected: str | None, manifest: Path, repair: bool = True) -> None:
    if not path.is_file():
        raise damaged(path, manifest, "it is missing", repair)
    if file_xxh3(path) != expected:
        raise damaged(path, manifest, repair=repair)


def restored(folder: Path, key: str, name: str = MANIFEST) -> bool:
    """Whether a folder was written under `key` and is complete; its manifest is then restored."""
    try:
        copy = read_manifest(folder / f".{name}", repair=False)
        if copy["key"] != key:
            return False
        hashes = copy["manifest"][_FILES]
    except (UserError, KeyError, TypeError):
        return False
    if hashes != {file: file_xxh3(folder / file) for file in _files(folder, name)}:
        log.warning("%s is damaged and is written again", folder)
        return False
    write_sealed(folder / name, copy["manifest"], hashes, _depth(folder))
    log.info("%s is up to date: nothing that it depends on has changed", folder)
    return True


def _files(folder: Path, name: str) -> list[str]:
    """Paths in a folder of all its files but the manifest and its copy."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if path not in (name, f".{name}")]
