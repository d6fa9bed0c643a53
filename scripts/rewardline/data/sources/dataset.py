"""The rows of a dataset from local files, or from the stored rows of each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rewardline.core.artifacts import verify_given
from rewardline.core.errors import UserError
from rewardline.core.settings import JsonObject
from rewardline.data.remote.fetched import read_fetched
from rewardline.data.sources.local_files import expand_files
from rewardline.data.sources.readers import read, reader
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import Input, Source, join_datasets, write_rows
from rewardline.data.stored_rows import StoredDataset


def from_files(name: str, settings: DownloadSettings) -> Source:
    """The rows of local files.

    Raises:
        UserError: a file does not exist, has an unknown format, or is a result that is damaged.
    """
    files = {path: Path(path) for path in expand_files(settings.files or [])}
    for path in files.values():
        verify_given(path)
    return _from_inputs(name, settings, files)


def from_fetched(name: str, settings: DownloadSettings, manifest: Path) -> Source:
    """The rows of a file from elsewhere, which has been fetched; a `UserError` if its copy is damaged."""
    address, path = read_fetched(manifest)
    return _from_inputs(name, settings, {address: path})


def _from_inputs(name: str, settings: DownloadSettings, files: Mapping[str, Path]) -> Source:
    inputs = file_inputs(files, settings.columns)
    for source in inputs:
        pin = settings.sha256.get(source.label)
        if pin not in (None, source.sha256):
            raise UserError(
                f"{source.label} has SHA-256 {source.sha256}, not {pin} as `sha256` of {name} says. Correct `sha256`, "
                "or take the file from where it is intact"
            )
    hashes: JsonObject = {source.label: source.sha256 for source in inputs}
    return Source(settings.description(), hashes, lambda folder: write_rows(name, inputs, folder))


def from_parts(settings: DownloadSettings, manifests: list[Path]) -> Source:
    """The stored rows of each file of a dataset, by their manifests, joined in this order."""
    parts = [StoredDataset.read(manifest) for manifest in manifests]
    depends_on: JsonObject = {"parts": [part.as_json() for part in parts]}
    return Source(
        settings.description(), depends_on, lambda folder: join_datasets(manifests, parts, folder), linked=manifests
    )


def file_inputs(files: Mapping[str, Path], columns: Sequence[str] | None) -> list[Input]:
    """Files to read, by label; a `UserError` for one of an unknown format, before the first one is read."""
    for label, path in files.items():
        reader(path, label, columns)
    return [Input(label, read(path, label, columns), path) for label, path in files.items()]
