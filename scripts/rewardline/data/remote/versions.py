"""What a server says of a file, and why it says nothing."""

from rewardline.core.errors import UserError
from rewardline.core.settings import Integer, Settings


class Version(Settings):
    """The state of a file elsewhere: one that is written to gets another."""

    etag: str | None = None
    """Its entity tag, or what an object store has in its place, such as an MD5."""
    modified: str | None = None
    """When it was last written, if it has no tag."""
    size: Integer | None = None
    """In bytes, if it is known."""

    @property
    def is_exact(self) -> bool:
        """Whether parts that were read at two times are of the same content if the versions are equal."""
        return bool(self.etag and not self.etag.startswith("W/")) or bool(self.modified)


class NotThereError(UserError):
    """There is no such file."""


class NotReachableError(UserError):
    """Nothing is known of a file now: no network, no access, or an error of the server."""
