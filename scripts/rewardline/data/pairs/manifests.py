"""What the stages from rows to pairs tell each other in their manifests."""

from pydantic import BaseModel

from rewardline.core.artifacts import Manifest
from rewardline.data.pairs.pair_statistics import PairCounts, SimilarPrompts
from rewardline.data.pairs.store import PartEntry
from rewardline.data.schema import RejectedRow


class CandidatesManifest(Manifest):
    """What `convert_rows.py` says of the candidates of a dataset, or of a part of it."""

    dataset: str
    format: str
    rows_in: int
    candidates: int
    characters: int
    """Text in all candidates."""
    rejects: dict[str, int]
    """Rows that give no pair, by reason."""
    pair_rejects: dict[str, int]
    """Further pairs that are left out of rows, by reason."""
    reject_examples: list[RejectedRow]


class CandidatesFolder(BaseModel):
    """A folder of candidates, with the SHA-256 of each of its files."""

    folder: str
    sha256: dict[str, str]


class PromptsManifest(Manifest):
    """What `group_prompts.py` says of a mixture's prompts: what is the same for every shard of its pairs."""

    caps: dict[str, float]
    """By capped dataset: a training prompt is used if its hash is below."""
    groups: SimilarPrompts
    data: list[CandidatesFolder]


class ShardManifest(Manifest):
    """What `clean_pairs.py` says of a shard of a mixture's pairs."""

    train: int
    eval: int
    statistics: PairCounts
    reject_examples: list[RejectedRow]
    parts: dict[str, list[PartEntry]]
    """Parquet files by split."""
