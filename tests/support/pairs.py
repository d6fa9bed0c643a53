"""Candidates, rows of pairs, and folders of pairs."""

import json
from pathlib import Path
from typing import Any

from rewardline.core.files import write_json
from rewardline.core.hashing import canonical
from rewardline.data.pairs.identity import prompt_identity
from rewardline.data.pairs.manifests import CandidatesManifest, PairCounts, ShardManifest
from rewardline.data.parquet import PartWriter
from rewardline.data.schema import PAIR_SCHEMA, Candidate, Message, Pair, RowLocation

Json = dict[str, Any]


def candidate(
    prompt: str | list[Message], chosen: str, rejected: str, dataset: str = "d", row: int = 1, rows: int = 1
) -> Candidate:
    """A candidate, made of `rows` rows of which `row` is the first."""
    turns: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    others: list[RowLocation] = [{"file": "f", "row": row + k} for k in range(1, rows)]
    return Candidate(
        prompt_id=prompt_identity(turns),
        prompt=canonical(turns),
        chosen=chosen,
        rejected=rejected,
        margin=None,
        confidence=1.0,
        weight=1.0,
        subset="s",
        dataset=dataset,
        file="f",
        row=row,
        others=others,
    )


def candidates_manifest(folder: Path, rows: int, characters: int = 0) -> Path:
    """Complete a folder of candidates by its manifest; the manifest's path."""
    manifest = CandidatesManifest(
        dataset="d",
        format="pairs",
        rows_in=rows,
        candidates=rows,
        characters=characters,
        rejects={},
        pair_rejects={},
        changed={},
        remarks=[],
        reject_examples=[],
    )
    write_json(folder / "manifest.json", manifest.as_json())
    return folder / "manifest.json"


def pair_rows(count: int, variety: str = "") -> list[Json]:
    """Rows of pairs with distinct prompts, clustered by prompt as the pairs stage leaves them."""
    return [
        {
            "pair_id": f"{k:016x}",
            "prompt_id": f"{k:016x}",
            "dataset": "d",
            "subset": "even" if k % 2 == 0 else "odd",
            "prompt": [{"role": "user", "content": f"How many are {k} and {k + 1}{variety}?"}],
            "chosen": f"They are {2 * k + 1}.",
            "rejected": f"They are {2 * k + 3}, I would say.",
            "margin": None,
            "confidence": 1.0,
            "weight": 1.0,
            "file": "f",
            "row": k + 1,
            "chosen_source": None,
            "rejected_source": None,
            "place": None,
            "native": None,
        }
        for k in range(count)
    ]


def write_pairs(folder: Path, train: list[Json], held_out: list[Json]) -> None:
    """A folder as the pairs stage leaves it."""
    for split, rows in (("train", train), ("eval", held_out)):
        writer = PartWriter[Pair](folder / split, PAIR_SCHEMA)
        for row in rows:
            writer.add(Pair(**row))
        writer.close()
    splits, total = {"train": len(train), "eval": len(held_out)}, len(train) + len(held_out)
    counts: Json = {"rows_in": total, "rows_used": total, "rejects": {}}
    dataset = {**counts, "revision": None, "format": "pairs", "pairs_out": total}
    stats = {"name": folder.name, **counts, **splits, "pair_rejects": {}, "by_dataset": {"d": dataset}}
    (folder / "stats.json").write_text(json.dumps(stats))
    shard = {**splits, "statistics": PairCounts(pairs=total), "reject_examples": [], "parts": {"train": [], "eval": []}}
    write_json(folder / "manifest.json", ShardManifest.model_validate(shard).as_json())
