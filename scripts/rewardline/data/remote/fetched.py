"""A file that was fetched from elsewhere: what its folder says, and the state in which it was looked up."""

from pathlib import Path

from rewardline.core.artifacts import Manifest, verify
from rewardline.core.settings import Settings, Text
from rewardline.data.remote.versions import Version


class FetchSettings(Settings):
    """What the copy of a file depends on."""

    address: Text
    version: Version | None = None
    """Of the file when the workflow started; null for a file that is pinned."""
    sha256: Text | None = None
    """What it must be."""


class FetchedFile(Manifest):
    """The manifest of a fetched file. It lacks the version: another one of equal content changes no result."""

    address: str
    file: str
    """Its name in the folder."""
    size: int
    sha256: str


def read_fetched(manifest: Path) -> tuple[str, Path]:
    """The address of a fetched file and its path.

    Raises:
        UserError: it is missing or damaged; the next `snakemake` fetches it again.
    """
    fetched = FetchedFile.read(manifest)
    path = manifest.parent / fetched.file
    verify(path)
    return fetched.address, path
