"""log.jsonl: what is written is read back, after kills, full disks and resumes."""

import json
import resource
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.training.records.log_file import EvalLine, LogFile, LogLine, SetFigures, read_log, read_unfinished_log

from support.training_runs import STEP_LINE


def line(step: int, loss: float = 0.5) -> LogLine:
    return replace(STEP_LINE, step=step, loss=loss)


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    sets = {"rb2": SetFigures(0.6, 0.75, 0.5, -0.5, 256)}
    evaluations = [EvalLine(1, 0.1, 0.7, 0.5, 0.1, 0.2, 512), EvalLine(2, 0.1, None, None, None, None, 0, sets)]
    of_answers = replace(STEP_LINE, step=3, answers=8, answer_loss=0.5, accuracy=None, pairs=0)
    lines = [line(1, 0.1 + 0.2), *evaluations, line(2, float("inf")), of_answers]
    log = LogFile(tmp_path / "log.jsonl", 0)
    for one in lines:
        log.write(one)
    log.close()
    assert list(read_log(tmp_path / "log.jsonl")) == list(read_unfinished_log(tmp_path / "log.jsonl")) == lines
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    names = ("router_loss", "answers", "answer_loss", "length_slope", "length_coefficient")
    left_out = dict.fromkeys(names)
    assert first | left_out == asdict(STEP_LINE) | {"loss": 0.1 + 0.2}
    assert not first.keys() & left_out.keys()


def test_the_log_resumes_after_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(asdict(line(step))) + "\n" for step in (1, 2, 3)) + '{"st')
    LogFile(path, 2).write(line(3, 0.25))
    assert list(read_unfinished_log(path)) == [line(1), line(2), line(3, 0.25)]


def test_lines_that_a_full_disk_refuses_are_written_later(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = LogFile(path, 0)
    log.write(line(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, hard))
    try:
        log.write(line(2))
        log.write(line(3))
        assert list(read_unfinished_log(path)) == [line(1)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(line(4))
    log.close()
    assert list(read_log(path)) == [line(1), line(2), line(3), line(4)]


def test_a_finished_log_that_is_damaged_or_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert list(read_unfinished_log(path)) == []
    with pytest.raises(UserError, match=r"log\.jsonl does not exist; run the train stage first"):
        list(read_log(path))
    for text in ('{"step": 2, "lo', '{"step": 2}', "3"):
        path.write_text(json.dumps(asdict(line(1))) + f"\n{text}\n")
        with pytest.raises(UserError, match=r"log\.jsonl line 2 is damaged .*; delete .* and train again"):
            list(read_log(path))
