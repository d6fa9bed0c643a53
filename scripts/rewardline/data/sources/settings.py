"""What reading a dataset's rows depends on."""

from typing import Self

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
        description="Local files or glob patterns: jsonl, json, csv, tsv or parquet; the text formats may be"
        " compressed as gz or zst.",
    )


class DownloadSettings(SourceSettings):
    """What the download of a dataset, or of one of its files, depends on."""

    split: Text | None = None  # type: ignore[assignment]
    """Null but for a hub dataset."""
    sizes: list[Integer] | None = None
    """Sizes of local files in bytes: they catch an edit with an older modification time."""

    def description(self) -> JsonObject:
        """The source, as the manifest of a dataset has it."""
        return self.model_dump(mode="json", exclude={"sizes"}, exclude_none=True)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("files", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of files, hub must be given, not {given or 'none'}")
        return self
