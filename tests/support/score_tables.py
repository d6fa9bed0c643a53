"""Tables of scored pairs with planted properties."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.evaluation.scores import SCHEMA


def table(
    rng: np.random.Generator, prompts: int, per_prompt: int = 1, scores: str = "noise", answers: int = 2
) -> pd.DataFrame:
    """Pairs of `answers` answers a prompt, the first of which is the best, with planted scores."""
    rows: list[dict[str, Any]] = []
    for prompt in range(prompts):
        tokens = rng.integers(5, 60, answers)
        values = {"noise": rng.normal(size=answers), "length": tokens / 8, "perfect": -np.arange(answers)}[scores]
        for other in range(1, answers) if answers > 2 else [1] * per_prompt:
            rows.append(
                {
                    "pair_id": f"{prompt}-{len(rows)}",
                    "prompt_id": f"p{prompt}",
                    "dataset": "d",
                    "subset": f"s{prompt % 3}",
                    "chosen_score": values[0],
                    "rejected_score": values[other],
                    "chosen_tokens": tokens[0],
                    "rejected_tokens": tokens[other],
                    "margin": float(rng.integers(1, 4)) if prompt % 4 else None,
                    "confidence": 1.0,
                    "weight": 1.0 + prompt % 2,
                    "comparison": prompt,
                    "chosen_answer": 0,
                    "rejected_answer": other,
                    "chosen_source": ["ann", "bob", None][prompt % 3],
                    "rejected_source": ["bob", "ann", "ann", "bob"][prompt % 4],
                    "file": "f.jsonl",
                    "row": prompt + 1,
                }
            )
    result = pd.DataFrame(rows).astype({"chosen_score": "float32", "rejected_score": "float32"})
    gap = result["chosen_score"] - result["rejected_score"]
    result["correct"] = (gap > 0) + 0.5 * (gap == 0)
    return result.assign(place=None)[SCHEMA.names]


def measurable(scores: pd.DataFrame) -> pd.DataFrame:
    """`scores` as `read_scores` returns them: with numbers in place of prompt ids."""
    return scores.assign(prompt_id=pd.factorize(scores["prompt_id"])[0])


def stored(scores: pd.DataFrame, folder: Path) -> Path:
    path = folder / "scores.parquet"
    pq.write_table(pa.Table.from_pandas(scores, schema=SCHEMA, preserve_index=False), path, row_group_size=100)
    return path
