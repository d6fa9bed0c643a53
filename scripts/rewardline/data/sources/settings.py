"""What reading a dataset's rows depends on."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from rewardline.core.settings import Integer, JsonObject, LocalPath, Settings, Text, Unique


class SourceSettings(Settings):
    """Where the rows of a dataset are."""

    hub: Text | None = Field(
        None,
        pattern="^[^/ ]+(/[^/ ]+)?$",
        description="Dataset on the Hugging Face Hub, as `owner/name`. For a private or gated dataset, set `HF_TOKEN`"
        " in the environment.",
    )
    revision: Text | None = Field(
        None,
        description="Commit of the Hub dataset; required with `hub`. A branch or tag is resolved to its commit, with a"
        " warning.",
    )
    config: Text | None = Field(None, description="Configuration (subset) of the Hub dataset.")
    split: Text = Field("train", description="Split of the Hub dataset.")
    data_files: list[Text] | None = Field(
        None, description="Files of the Hub dataset to read, as in `datasets.load_dataset`."
    )
    data_dir: Text | None = Field(None, description="Folder of the Hub dataset to read, as in `datasets.load_dataset`.")
    columns: Unique[Text] | None = Field(
        None, min_length=1, description="Column names of csv, tsv or txt files that have no header line."
    )
    files: list[LocalPath] | None = Field(
        None,
        min_length=1,
        description="Files or glob patterns: jsonl, json, csv, tsv or parquet; the text formats may be compressed as gz"
        " or zst. Local paths, or addresses `https://`, `http://`, `s3://` and `gs://`, see below.",
    )
    sha256: dict[LocalPath, Annotated[Text, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        {},
        description="SHA-256 of files by their name in `files`: `{https://example.org/a.jsonl: 9f86d0...}`. A file with"
        " another content is an error. An address that is pinned in this way is not asked for changes.",
    )


class DownloadSettings(SourceSettings):
    """What the download of a dataset, or of one of its files, depends on."""

    split: Text | None = None  # type: ignore[assignment]
    """Null but for a hub dataset."""
    sizes: list[Integer] | None = None
    """Sizes of local files in bytes: they catch an edit with an older modification time."""

    def description(self) -> JsonObject:
        """The source, as the manifest of a dataset has it."""
        return self.model_dump(mode="json", exclude={"sizes", "sha256"}, exclude_none=True)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("files", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of files, hub must be given, not {given or 'none'}")
        return self
