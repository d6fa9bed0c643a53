"""Conversion of a dataset's rows to candidates."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from rewardline.core.artifacts import write_manifest
from rewardline.data import convert
from rewardline.data.formats.settings import ConvertSettings
from rewardline.data.pairs.candidates import CandidateReader, CandidateWriter
from rewardline.data.sources.dataset import file_inputs
from rewardline.data.sources.store import write_rows

Json = dict[str, Any]


def sides(number: int) -> tuple[str, str, str]:
    """A prompt, some of which come twice, and two answers."""
    return f"Question {number % 40}?", f"Good answer {number}.", f"Bad answer {number}."


def pairs(number: int) -> Json:
    prompt, good, bad = sides(number)
    other: list[Json] = [{"rejected": good}, {"prompt": [{"role": "user", "content": "Why?"}]}, {"chosen": ""}]
    return {"prompt": prompt, "chosen": good, "rejected": bad, **(other[number % 3] if number % 7 == 0 else {})}


def messages(number: int) -> Json:
    prompt, *answers = sides(number)
    turns: list[Json] = [{"role": "system", "content": "Be kind."}] if number % 3 else []
    turns = [*turns, {"role": "user", "content": prompt, **({"name": "Ann"} if number % 7 == 0 else {})}]
    chosen, rejected = ([*turns, {"role": "assistant", "content": answer}] for answer in answers)
    return {"chosen": chosen, "rejected": rejected}


def scores(number: int) -> Json:
    prompt, one, two = sides(number)
    given = {"score_a": number % 5, "score_b": 2.5 if number % 7 else "none"}
    return {"prompt": prompt, "response_a": one, "response_b": two, **given}


def converted(folder: Path, rows: list[Json], **options: Any) -> dict[str, object]:
    """What the conversion of rows leaves."""
    for name in ("rows", "out"):
        (folder / name).mkdir(parents=True)
    data = folder / "data.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    write_manifest(folder / "rows", write_rows("d", file_inputs({"data.jsonl": data}, None), folder / "rows"))
    settings, manifest = ConvertSettings.model_validate(options), folder / "rows" / "manifest.json"
    found = convert.convert("d", settings, manifest, None, [], [], folder / "out")
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    for name in ("candidates.arrow", "batches.npy"):  # nulls may be encoded in several ways
        del files[name]
    write_manifest(folder / "out", found)
    candidates = CandidateReader(folder / "out").between(0, 2**64)
    return {**files, "candidates": candidates, "manifest": found.as_json()}


@pytest.mark.parametrize("make", [pairs, messages, scores])
@pytest.mark.parametrize("options", [{}, {"share": (0, 0.5)}, {"subset": "s", "ties": "keep"}])
def test_rows_in_columns_give_what_they_give_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, options: Json
) -> None:
    rows = list(map(make, range(300)))
    monkeypatch.setattr(convert, "_PLAIN_ROWS", 50)
    add_columns = mock.Mock(side_effect=CandidateWriter.add_columns)
    monkeypatch.setattr(CandidateWriter, "add_columns", lambda *args: add_columns(*args))
    found = converted(tmp_path / "columns", rows, **options)
    assert add_columns.called == ("share" not in options)
    monkeypatch.setattr(convert, "plain_reader", lambda _: None)
    assert converted(tmp_path / "rows", rows, **options) == found
