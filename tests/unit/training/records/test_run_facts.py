"""run.json: what is written is read back, and damage is named."""

import json
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.core.files import write_json
from rewardline.training.records.run_facts import NormalizationFacts, Resumption, RunFacts

from support.training_runs import run_facts


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    facts = run_facts(
        normalization=NormalizationFacts(mean=0.1, std=0.3, folded=True, mean_left=1 / 3),
        continued=[Resumption(step=3, world_size=2, zero_stage=1)],
        final={"loss": 0.1 + 0.2},
        train_answers=2,
        targets={"type": "binary"},
        attributes=[{"name": "a"}],
        model_flops=1e20 / 3,
    )
    write_json(tmp_path / "run.json", facts.as_json())
    assert RunFacts.read(tmp_path / "run.json") == facts
    assert {"xxh3", *json.loads((tmp_path / "run.json").read_text())} == RunFacts.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist; run the stage"),
        ('{"run": "r",', "is damaged"),
        ("[]", "is damaged"),
        ('{"run": 3}', r"is damaged \(run: .*makes it again"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=rf"run\.json {message}"):
        RunFacts.read(tmp_path / "run.json")
