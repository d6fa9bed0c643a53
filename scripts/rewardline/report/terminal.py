"""Snakemake's messages as a person reads them: a line for each finished job, with the time left."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rewardline.report.formatting import duration
from rewardline.report.summary import failure_message, stop_message

TARGETS = ("all", "show")
"""Rules that only collect files; they are not shown."""
NOISE = (
    *("Assuming unrestricted", "Using shell", "Conda environments: ignored", "Singularity containers: ignored"),
    *("Updating checkpoint dependencies", "DAG of jobs will be updated", "The run involves checkpoint jobs"),
    *("Select jobs to execute", "Job failed, going on with independent jobs", "Exiting because a job execution failed"),
)
"""How messages begin that say nothing about this workflow."""
LOG_LINES = 12


@dataclass(frozen=True)
class _Job:
    rule: str
    text: str
    started: float  # Unix time, seconds


class JobLines(logging.Formatter):
    """A formatter and a filter of Snakemake's log records; what they do not know is left to `other`.

    They read the events of Snakemake's interface for loggers: RUN_INFO (jobs of each rule), JOB_INFO, JOB_FINISHED and
    JOB_ERROR. On a `terminal`, a line replaces the progress bar of a running job; elsewhere lines suit a log file.
    `stopped`: whether a person or a cluster has stopped the workflow, of which no job then is a failure.
    """

    def __init__(
        self,
        other: logging.Formatter,
        dryrun: bool = False,
        terminal: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._other, self._dryrun, self._stopped = other, dryrun, stopped
        self._start = "\r\033[K" if terminal else ""
        self._planned: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._jobs: dict[int, _Job] = {}
        self._begin = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the jobs that are planned and started; whether a record is to be shown."""
        facts, event = vars(record), getattr(record, "event", None)
        if event == "run_info":
            self._planned = Counter({name: n for name, n in facts["stats"].items() if name not in (*TARGETS, "total")})
        elif event == "job_info":
            words = facts["rule_msg"] or " ".join(map(str, facts["wildcards"].values()))
            self._jobs[facts["jobid"]] = _Job(facts["rule_name"], words, record.created)
            self._begin = self._begin or record.created
            if (rule := facts["rule_name"]) not in TARGETS:  # a checkpoint may have added it
                at_least = self._finished[rule] + sum(job.rule == rule for job in self._jobs.values())
                self._planned[rule] = max(self._planned[rule], at_least)
            return self._dryrun and facts["rule_name"] not in TARGETS
        elif event == "job_finished" and (job := self._jobs.get(facts["job_id"])):
            return job.rule not in TARGETS
        if event == "error" and self._stopped():
            return False  # that a signal has ended a job
        return event not in ("job_started", "progress", "resources_info") and not record.getMessage().startswith(NOISE)

    def format(self, record: logging.LogRecord) -> str:
        """A job that ended, in a line, and why it failed; another message as `other` writes it."""
        text = self._text(record)
        return self._start + text if text else ""

    def _text(self, record: logging.LogRecord) -> str:
        facts, event = vars(record), getattr(record, "event", None)
        job = self._jobs.get(facts.get("job_id", facts.get("jobid", -1)))
        if job is None or event not in ("job_info", "job_finished", "job_error"):
            return self._other.format(record)
        if event == "job_info":
            return f"{job.rule:<{self._width()}}  {job.text}"
        seconds = record.created - job.started
        line = f"{duration(seconds):>13}  {job.rule:<{self._width()}}  {job.text}".rstrip()
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        if event == "job_error":
            logs = [path for path in map(Path, facts["log"]) if _is_newer(path, job.started)]
            reason = [text for path in logs for text in failure_message(path)]
            if self._stopped() and not reason:
                return f"{clock}  stopped {line} {''.join(map(stop_message, logs))}".rstrip()
            reason = reason or [text for path in logs for text in _last_lines(path)]
            if not reason:
                return f"{clock}  failed\n{self._other.format(record)}"
            # A cluster says in the message how the job ended, such as NODE_FAIL.
            aux = [*filter(None, [facts["rule_msg"]]), *(f"{name}: {value}" for name, value in facts["aux"].items())]
            return "\n  ".join([f"{clock}  failed {line}; see {' '.join(facts['log'])}", *aux, *reason])
        del self._jobs[facts["job_id"]]
        self._finished[job.rule] += 1
        self._seconds[job.rule] += seconds
        total = f"{self._planned.total():,}"
        return f"{clock}  {self._finished.total():>{len(total)},}/{total}{line}{self._left(record.created)}"

    def _width(self) -> int:
        return max(map(len, self._planned), default=0)

    def _left(self, now: float) -> str:
        """The time left if jobs take as long as those of their rule before, and as many run at once.

        A lower bound as long as a rule that is to run has no finished job; empty where nothing is known.
        """
        running: dict[str, float] = defaultdict(float)
        for job in self._jobs.values():
            running[job.rule] += now - job.started
        to_do = self._planned - self._finished
        means = {rule: self._seconds[rule] / n for rule, n in self._finished.items()}
        work = sum(max(n * means[rule] - running[rule], 0) for rule, n in to_do.items() if rule in means)
        at_once = (sum(self._seconds.values()) + sum(running.values())) / max(now - self._begin, 1e-9)
        left, is_bound = work / max(at_once, 1), any(rule not in means for rule in to_do)
        if not to_do or left < 10:  # seconds
            return ""
        return f"; {'at least' if is_bound else 'about'} {duration(round(left))} left"


def _is_newer(log: Path, started: float) -> bool:
    """Whether a log is of this attempt; a job that a cluster ended at once leaves that of the attempt before."""
    return log.exists() and log.stat().st_mtime >= int(started)


def _last_lines(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
