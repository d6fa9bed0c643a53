"""The rows of a dataset from local files or the hub, in the stored form."""

from pathlib import Path

from rewardline.core.hub import resolve
from rewardline.core.settings import JsonObject
from rewardline.data.sources.hub import fetch
from rewardline.data.sources.local_files import expand_files
from rewardline.data.sources.readers import read, reader
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import (
    Input,
    Source,
    SourceFile,
    StoredRows,
    join_parts,
    read_manifest,
    store,
    write_rows,
)


def download(name: str, settings: DownloadSettings, parts: list[Path], output: Path, program: Path) -> None:
    """Make the folder of a dataset, unless nothing that it depends on has changed since it was made.

    `parts`: manifests of its files, if each of them was read before; `program`: the module that runs this.

    Raises:
        UserError: the source cannot be read.
    """
    if parts:
        source = _joined(settings, parts)
    elif settings.hub is not None:
        source = _from_hub(name, settings, settings.hub)
    else:
        source = _from_files(name, settings)
    store(name, settings.replace(sizes=None), source, output, program)


def _description(settings: DownloadSettings) -> JsonObject:
    return settings.model_dump(mode="json", exclude={"sizes"}, exclude_none=True)


def _joined(settings: DownloadSettings, parts: list[Path]) -> Source:
    contents = [read_manifest(part) for part in parts]
    depends_on: JsonObject = {"parts": [each.as_json() for each in contents]}
    return Source(_description(settings), depends_on, lambda folder: join_parts(parts, contents, folder))


def _from_files(name: str, settings: DownloadSettings) -> Source:
    """Local files; `settings.files` are paths, which may hold characters of a glob, and globs."""
    paths = dict.fromkeys(path for pattern in settings.files or [] for path in _matches(pattern))
    files = [SourceFile(path, Path(path)) for path in paths]
    _check_readers(files, settings)
    depends_on: JsonObject = {file.label: file.sha256 for file in files}
    return Source(_description(settings), depends_on, lambda folder: _write(name, settings, files, folder))


def _matches(pattern: str) -> list[str]:
    return [pattern] if Path(pattern).is_file() else expand_files([pattern])


def _from_hub(name: str, settings: DownloadSettings, repo: str) -> Source:
    commit = resolve("dataset", repo, settings.revision or "main")

    def write(folder: Path) -> StoredRows:
        fetched = fetch(
            repo, commit, settings.config, settings.split or "train", settings.data_files, settings.data_dir
        )
        files = [SourceFile(file.label, file.path) for file in fetched]
        _check_readers(files, settings)
        return _write(name, settings, files, folder)

    return Source(_description(settings), {"commit": commit}, write, commit)


def _check_readers(files: list[SourceFile], settings: DownloadSettings) -> None:
    """Raise `UserError` for a file of an unknown format before the first one is read."""
    for file in files:
        reader(file.path, file.label, settings.columns)


def _write(name: str, settings: DownloadSettings, files: list[SourceFile], folder: Path) -> StoredRows:
    inputs = [Input(file.label, read(file.path, file.label, settings.columns), file) for file in files]
    return write_rows(name, inputs, folder)
