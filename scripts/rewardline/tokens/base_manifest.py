"""The manifest of a base model; all that read it share it, also those that need no torch."""

from pydantic import BaseModel, JsonValue

from rewardline.core.artifacts import Manifest
from rewardline.core.settings import JsonObject


class BaseFile(BaseModel):
    """A file of a base model."""

    file: str
    sha256: str


class BaseManifest(Manifest):
    """The manifest of a base model; by `base_model.py`.

    `revision`: its commit on the hub; `positions`: the most tokens that it takes; `notes`: what of its files is used
    otherwise than expected.
    """

    source: JsonObject
    revision: str | None
    model_type: str
    vocabulary: int
    positions: int | None
    files: list[BaseFile]
    notes: list[str]

    def without_weights(self) -> list[JsonValue]:
        """The files that tokens depend on, with their hashes."""
        return [file.model_dump() for file in self.files if ".safetensors" not in file.file]
