"""The figures of a run's benchmarks, for the loggers that have the curves of its training."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.artifacts import verify
from rewardline.core.errors import UserError
from rewardline.core.files import write_json
from rewardline.evaluation.results import read_results
from rewardline.training.records import loggers
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import TrackSettings

log = logging.getLogger(__name__)
FIGURES = ("accuracy", "accuracy_low", "accuracy_high", "loss", "length_accuracy", "n")
RATING_FIGURES = ("spearman", "kendall", "mse", "accuracy", "n")


def track(settings: TrackSettings, model: Path, metrics: Sequence[Path], local: Path, output: Path) -> None:
    """Give every logger `benchmark/NAME/FIGURE` of a trained model, then write to `output` which have them.

    `metrics`: the `metrics.json` of each evaluation; `local`: see `loggers.TrackedRun`.

    Raises:
        UserError: a logger did not take them, or a file is damaged.
    """
    facts = RunFacts.read(model / "run.json")
    verify(model / "log.jsonl", "run.json")
    values: dict[str, float] = {}
    for one in read_results(metrics):
        values |= {f"benchmark/{one.benchmark}/{name}": float(getattr(one, name)) for name in FIGURES}
        for rating, found in one.ratings.items():
            values |= {
                f"benchmark/{one.benchmark}/{rating}/{name}": float(getattr(found, name)) for name in RATING_FIGURES
            }
        if one.sections is not None:
            values[f"benchmark/{one.benchmark}/overall"] = one.sections.overall
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    facts_shown = facts.model_dump(mode="json", include={"run", "sweep", "mixture", "model", "seed", "training"})
    identity = facts.tracker_id or loggers.identity(facts.run, facts.key)
    run = loggers.TrackedRun(facts.run, facts.seed, identity, facts_shown, model, local)
    loggers.check(settings.loggers)
    done = []
    for name, curves in loggers.open_trackers(settings.loggers, run):
        curves.sum_up(known, facts.exported_step or facts.steps)
        curves.close()
        if curves.failure is not None:
            raise UserError(f"training.loggers.{name}: failed ({curves.failure}); the same command tries again")
        log.info("%s has %d figures of %s", name, len(known), facts.run)
        done.append(name)
    write_json(output, {"run": facts.run, "loggers": done, "figures": known})
