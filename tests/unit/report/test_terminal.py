"""A line for each finished job, with the time left, from the events that snakemake logs."""

import logging
from pathlib import Path
from typing import Any

from rewardline.report.terminal import JobLines

OTHER = logging.Formatter("other: %(message)s")


class Terminal:
    """Shows records as a handler does, at times that the test sets."""

    def __init__(self, **options: Any) -> None:
        self.lines, self.shown = JobLines(OTHER, **options), list[str]()

    def log(self, when: float, event: str | None, message: str = "", **facts: Any) -> None:
        values = {"msg": message, "created": 1e9 + when, "levelno": logging.INFO, "levelname": "INFO", "event": event}
        record = logging.makeLogRecord(values | facts)
        if self.lines.filter(record) and (text := self.lines.format(record)):
            self.shown.append(text)

    def plan(self, **jobs: int) -> None:
        self.log(0, "run_info", "a table", stats=jobs | {"total": sum(jobs.values())})

    def begin(self, when: float, jobid: int, rule: str, words: str | None = None) -> None:
        wildcards = {"run": "a", "benchmark": "eval"}
        self.log(when, "job_info", jobid=jobid, rule_name=rule, rule_msg=words, wildcards=wildcards)
        self.log(when, "job_started", "Execute 1 jobs...", jobs=[jobid])

    def end(self, when: float, jobid: int) -> None:
        self.log(when, "job_finished", "Finished", job_id=jobid)
        self.log(when, "progress", done=1, total=2)

    def last(self) -> str:
        """The last line without its time of day and its alignment."""
        return " ".join(self.shown[-1].split()[1:])


def test_a_finished_job_is_a_line_with_its_seconds_and_the_time_left() -> None:
    terminal = Terminal()
    terminal.plan(train=4, evaluate=1, all=1)
    assert terminal.shown.pop() == "other: a table"
    terminal.begin(0, 1, "train", "Training a")
    terminal.begin(0, 2, "train", "Training b")
    terminal.end(100, 1)
    # Two at once: what is left of b takes no more, c and d take 100 s each; nobody knows how long `evaluate` takes.
    assert terminal.last() == "1/5 1 min 40 s train Training a; at least 1 min 40 s left"
    terminal.end(100, 2)
    terminal.begin(100, 3, "train", "Training c")
    terminal.begin(100, 4, "evaluate")
    terminal.end(130, 4)
    assert terminal.last() == "3/5 30 s evaluate a eval; about 1 min 25 s left"
    terminal.end(150, 3)
    terminal.begin(150, 5, "train", "Training d")
    terminal.end(250, 5)
    terminal.begin(250, 0, "all")
    terminal.end(250, 0)
    assert terminal.last() == "5/5 1 min 40 s train Training d", "`all` only collects files"
    assert not any(letter < " " for line in terminal.shown for letter in line)


def test_jobs_that_a_checkpoint_has_added_count() -> None:
    terminal = Terminal()
    terminal.plan(train=1, halve=1)
    terminal.begin(0, 1, "halve")
    terminal.log(0, None, "DAG of jobs will be updated after completion.")
    terminal.end(1, 1)
    assert terminal.last().startswith("1/2 ")
    terminal.begin(1, 2, "train")
    terminal.begin(1, 3, "train")
    terminal.end(2, 2)
    terminal.end(2, 3)
    assert terminal.last().startswith("3/3 ") and len(terminal.shown) == 4


def test_a_failed_job_says_why_at_once_and_counts_when_its_retry_has_ended(tmp_path: Path) -> None:
    stated, crashed = tmp_path / "stated.log", tmp_path / "crashed.log"
    stated.write_text("12:00:00 read\n12:00:01 error: rows.jsonl, row 3: no answer\n")
    crashed.write_text("Traceback\nKeyError: 7\n")
    terminal = Terminal()
    terminal.plan(train=1)
    for log in (stated, crashed, tmp_path / "none.log"):
        terminal.begin(0, 1, "train", "Training a")
        facts = {"rule_msg": "status NODE_FAIL", "log": [str(log)], "aux": {"slurm_jobid": 5}}
        terminal.log(9, "job_error", "Error", jobid=1, rule_name="train", **facts)
    said, traceback, unknown = terminal.shown[1:]
    lines = [
        "train  Training a; see " + str(stated),
        "status NODE_FAIL",
        "slurm_jobid: 5",
        "rows.jsonl, row 3: no answer",
    ]
    assert said.endswith("9.0 s  " + "\n  ".join(lines))
    assert traceback.endswith("  Traceback\n  KeyError: 7")
    assert unknown.endswith("failed\nother: Error")
    terminal.begin(10, 1, "train", "Training a")
    terminal.end(12, 1)
    assert "1/1" in terminal.shown[-1] and "2.0 s" in terminal.shown[-1]


def test_a_job_that_is_stopped_on_request_is_no_failure(tmp_path: Path) -> None:
    saved, broken = tmp_path / "saved.log", tmp_path / "broken.log"
    saved.write_text("12:00:00 read\n12:00:01 stopped on request at step 48 of 240, checkpoint saved\n")
    broken.write_text("12:00:01 error: rows.jsonl, row 3: no answer\n")
    terminal = Terminal(stopped=lambda: True)
    terminal.plan(train=3)
    for log in (saved, tmp_path / "none.log", broken):
        terminal.begin(0, 1, "train", "Training a")
        terminal.log(9, "error", "CalledProcessError: died with SIGINT")
        terminal.log(9, "job_error", "Error", jobid=1, rule_name="train", rule_msg="", log=[str(log)], aux={})
    stopped, at_once, failed = terminal.shown[1:]
    assert stopped.endswith("stopped         9.0 s  train  Training a at step 48 of 240, checkpoint saved")
    assert at_once.endswith("stopped         9.0 s  train  Training a")
    assert "failed" in failed and failed.endswith("row 3: no answer")


def test_what_is_not_known_is_left_to_snakemake() -> None:
    terminal = Terminal()
    terminal.end(1, 7)
    terminal.log(1, None, "a warning of a plugin")
    terminal.log(1, None, "Select jobs to execute...")
    assert terminal.shown == ["other: Finished", "other: a warning of a plugin"]


def test_a_dry_run_lists_the_jobs_without_their_files() -> None:
    terminal = Terminal(dryrun=True)
    terminal.plan(train=1, evaluate=1, all=1)
    for jobid, rule in enumerate(("train", "evaluate", "all")):
        terminal.begin(0, jobid, rule, f"Doing {rule}" if jobid else None)
    assert terminal.shown[1:] == ["train     a eval", "evaluate  Doing evaluate"]


def test_on_a_terminal_a_line_replaces_the_bar_of_a_running_job() -> None:
    terminal = Terminal(terminal=True)
    terminal.log(0, None, "a message")
    assert terminal.shown == ["\r\033[Kother: a message"]
