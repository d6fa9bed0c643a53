"""The rows of a dataset from local files, or from the stored rows of each of them."""

from pathlib import Path

from rewardline.core.settings import JsonObject
from rewardline.data.sources.local_files import expand_files
from rewardline.data.sources.readers import read, reader
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import Input, Source, SourceFile, join_parts, write_rows
from rewardline.data.stored_rows import StoredDataset


def from_files(name: str, settings: DownloadSettings) -> Source:
    """Local files; `settings.files` are paths, which may hold characters of a glob, and globs.

    Raises:
        UserError: a file does not exist, or has an unknown format.
    """
    paths = dict.fromkeys(path for pattern in settings.files or [] for path in _matches(pattern))
    files = [SourceFile(path, Path(path)) for path in paths]
    check_readers(files, settings)
    depends_on: JsonObject = {file.label: file.sha256 for file in files}
    return Source(settings.description(), depends_on, lambda folder: write_files(name, files, settings, folder))


def _matches(pattern: str) -> list[str]:
    return [pattern] if Path(pattern).is_file() else expand_files([pattern])


def from_parts(settings: DownloadSettings, manifests: list[Path]) -> Source:
    """The stored rows of each file of a dataset, by their manifests, joined in this order."""
    parts = [StoredDataset.read(manifest) for manifest in manifests]
    depends_on: JsonObject = {"parts": [part.as_json() for part in parts]}
    return Source(settings.description(), depends_on, lambda folder: join_parts(manifests, parts, folder))


def check_readers(files: list[SourceFile], settings: DownloadSettings) -> None:
    """Raise `UserError` for a file of an unknown format; to be called before the first one is read."""
    for file in files:
        reader(file.path, file.label, settings.columns)


def write_files(name: str, files: list[SourceFile], settings: DownloadSettings, folder: Path) -> StoredDataset:
    """Write the rows of files to parts in `folder`."""
    inputs = [Input(file.label, read(file.path, file.label, settings.columns), file) for file in files]
    return write_rows(name, inputs, folder)
