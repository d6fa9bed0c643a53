"""The rated single answers of an ensemble: combined scores, and the mean of what its members predict of each rating."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow as pa

from rewardline.data.schema import arrow_schema, hash_texts
from rewardline.evaluation.metrics.intervals import Floats
from rewardline.evaluation.results import PredictedAttribute
from rewardline.evaluation.scores import Ids, RatedScore, read_table

_SCHEMA = arrow_schema(RatedScore)


def read_answer_scores(path: Path) -> tuple[Ids, "np.typing.NDArray[np.float32]"]:
    """`hash_texts` of each answer's id, uint64 [n]; its score, float32 [1, n]; raises as `scores.read_batches`."""
    table = read_table(path, ("answer_id", "score")).combine_chunks()
    return hash_texts(table["answer_id"]), table["score"].to_numpy()[None]


def mean_attributes(members: Sequence[Sequence[PredictedAttribute]]) -> list[PredictedAttribute]:
    """The attributes of an ensemble: moments and weights are the mean of those of its members."""
    return [
        PredictedAttribute(
            name=of_members[0].name,
            mean=fmean(one.mean for one in of_members),
            std=fmean(one.std for one in of_members),
            weight=fmean(one.weight for one in of_members),
        )
        for of_members in zip(*members, strict=True)
    ]


def combined_answers(
    members: Mapping[Path, Sequence[PredictedAttribute]], answers: Ids, scores: "np.typing.NDArray[np.float32]"
) -> pa.Table:
    """The rows of the first member's `answers.parquet` that all members scored, with what the ensemble says of them.

    `members`: that file of each member, with the attributes that its outputs are of; `answers` and `scores` [1, n] as
    in `CombinedScores`. The outputs are the mean of the members' predicted ratings, standardized by `mean_attributes`.
    """
    attributes = mean_attributes(list(members.values()))
    predicted: Floats = np.zeros((len(answers), len(attributes)))
    for path, own in members.items():
        table = read_table(path, ("answer_id", "outputs")).combine_chunks()
        _, _, rows = np.intersect1d(answers, hash_texts(table["answer_id"]), return_indices=True)
        outputs = np.array(table["outputs"].to_pylist(), dtype=np.float64).reshape(len(table), len(own))[rows]
        predicted += (np.array([one.mean for one in own]) + outputs * [one.std for one in own]) / len(members)
    outputs = (predicted - [one.mean for one in attributes]) / [one.std or 1.0 for one in attributes]
    first = read_table(next(iter(members)), _SCHEMA.names)
    found = np.searchsorted(answers, hashes := hash_texts(first["answer_id"].combine_chunks()))
    known = np.isin(hashes, answers)
    result = first.filter(pa.array(known))
    for name, values in (("score", scores[0][found[known]]), ("outputs", list(outputs[found[known]]))):
        column = pa.array(values, _SCHEMA.field(name).type)
        result = result.set_column(result.column_names.index(name), name, column)
    return result.cast(_SCHEMA)
