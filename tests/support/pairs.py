"""Rows of pairs, and folders of pairs."""

import json
from pathlib import Path
from typing import Any

from rewardline.data.pairs.store import PAIR_SCHEMA, PartWriter

Json = dict[str, Any]


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
        }
        for k in range(count)
    ]


def write_pairs(folder: Path, train: list[Json], held_out: list[Json]) -> None:
    """A folder as the pairs stage leaves it."""
    for split, rows in (("train", train), ("eval", held_out)):
        writer = PartWriter(folder / split, PAIR_SCHEMA)
        for row in rows:
            writer.add(row)
        writer.close()
    for name in ("stats.json", "manifest.json"):
        (folder / name).write_text(json.dumps({"train": len(train), "eval": len(held_out)}))
