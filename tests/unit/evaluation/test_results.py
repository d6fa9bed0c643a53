"""The one reader of metrics.json: what it takes, and what it says of other files."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardline.core.artifacts import read_manifest
from rewardline.core.errors import UserError
from rewardline.core.settings import JsonObject
from rewardline.evaluation.metrics.summarize import summarize
from rewardline.evaluation.results import EvaluationResult, read_results

from support.score_tables import measurable, table

IDENTITY: JsonObject = {"run": "r", "name": "r", "mixture": "m", "model": "x", "seed": 0, "benchmark": "eval"}
LEAST: JsonObject = {**IDENTITY, "n": 9, "accuracy": 0.5}


def written(folder: Path, value: Any) -> Path:
    path = folder / "metrics.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("answers", [2, 4])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, answers: int) -> None:
    metrics = summarize(measurable(table(np.random.default_rng(0), 60, answers=answers)), scale=2.0)
    result = EvaluationResult.model_validate(
        {**IDENTITY, **metrics.as_json(), "sections": None, "normalization": {"mean": 1.0, "std": 2.0}}
    )
    result.write(tmp_path / "metrics.json")
    again = EvaluationResult.read(tmp_path / "metrics.json")
    content = read_manifest(tmp_path / "metrics.json")
    assert content.pop("xxh3") == {}
    assert again.as_json() == result.as_json() == content
    assert set(result.as_json()) >= {*IDENTITY, "calibration", "length", "by_subset", "weighted_accuracy", "best_of_n"}
    assert not set(result.as_json()) & {"ensemble", "combine", "standards", "unscored"}


def test_what_a_file_lacks_is_unknown_and_null_is_nan(tmp_path: Path) -> None:
    (result,) = read_results([written(tmp_path, {**LEAST, "accuracy": None, "loss": None, "by_subset": None})])
    assert math.isnan(result.accuracy + result.loss + result.calibration.ece + result.length.correlation)
    assert (result.by_subset, result.best_of_n, result.sections, result.family) == ({}, None, None, "r")
    assert result.as_json() == {**LEAST, "accuracy": None, "loss": None, "by_subset": {}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"n": True}, "n"),
        ({"accuracy": "high"}, "accuracy"),
        ({"length_accuracy": 1.5}, "length_accuracy"),
        ({"model": ""}, "model"),
        ({"by_subset": {"a": {"accuracy": 1.0}}}, "by_subset.a.n"),
        ({"calibration": {"ece": [0.1]}}, "calibration.ece"),
        ({"by_margin": [{"low": 0.0, "high": 1.0, "n": 3, "accuracy": -1}]}, "by_margin.0.accuracy"),
        ({"best_of_n": []}, "best_of_n"),
        ({"sections": {"sections": {"Chat": 0.5}}}, "sections.sections.Chat"),
    ],
)
def test_another_file_is_refused_with_the_key_and_the_remedy(tmp_path: Path, changes: JsonObject, key: str) -> None:
    path = written(tmp_path, {**LEAST, **changes})
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        read_results([path])
    assert f"'{key}'" in str(error.value)
    assert str(error.value).endswith("; delete it and run the evaluate stage again")


def test_names_are_printable_and_stay_apart(tmp_path: Path) -> None:
    rates = {"n": 1, "accuracy": 1.0}
    subsets = {"a\x00": rates, "a\x01": rates, "": rates}
    (result,) = read_results([written(tmp_path, {**LEAST, "run": "r\x1b", "by_subset": subsets})])
    assert result.run == "r\ufffd"
    assert list(result.by_subset) == ["a\ufffd", "a\ufffd (2)", "(none)"]
