"""The files that the report is made from, read and typed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from rewardline.core.artifacts import verify
from rewardline.data.pairs.manifests import MixtureStatistics
from rewardline.data.pairs.probes import made_by_rule
from rewardline.evaluation.choices import ChosenRun
from rewardline.evaluation.comparisons import BenchmarkComparison, ComparisonsFile, Difference, LearningCurve
from rewardline.evaluation.labels.audit_result import AuditResult
from rewardline.evaluation.labels.suspects import SUSPECTS, Suspect, read_suspects
from rewardline.evaluation.leaderboards import Leaderboard
from rewardline.evaluation.results import EvaluationResult, left_out_lines, read_all_results
from rewardline.scoring.manifests import PairsToLabel, ScoredAnswers, read_account
from rewardline.tokens.store import TokenManifest
from rewardline.training.records.log_file import EvalLine, SetFigures, StepLine, read_log
from rewardline.training.records.run_facts import RunFacts


@dataclass(frozen=True)
class TrainingRun:
    """How a model was trained, and its log.

    `steps` has a column for each field of `StepLine`, `evals` of `EvalLine`, and each of `sets`, by evaluation set, of
    `SetFigures`; their index is the step, and a number that is not finite is NaN.
    """

    facts: RunFacts
    steps: pd.DataFrame
    evals: pd.DataFrame
    sets: dict[str, pd.DataFrame]


def _read_training_run(folder: Path) -> TrainingRun:
    verify(folder / "log.jsonl", "run.json")
    lines = list(read_log(folder / "log.jsonl"))
    steps = _frame(StepLine, (vars(line) for line in lines if isinstance(line, StepLine)))
    evaluations = [line for line in lines if isinstance(line, EvalLine)]
    sets = {
        name: _frame(
            SetFigures, ({"step": e.step, **vars(e.eval_sets[name])} for e in evaluations if name in e.eval_sets)
        )
        for name in dict.fromkeys(name for one in evaluations for name in one.eval_sets)
    }
    return TrainingRun(RunFacts.read(folder / "run.json"), steps, _frame(EvalLine, map(vars, evaluations)), sets)


def _frame(kind: type[StepLine | EvalLine | SetFigures], rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    columns = ["step", *(field.name for field in fields(kind) if field.name not in ("step", "eval_sets"))]
    frame = pd.DataFrame(list(rows), columns=columns, dtype=np.float64).set_index("step")
    return frame.where(np.isfinite(frame))


@dataclass(frozen=True)
class ReportData:
    """What the report is made of.

    Attributes:
        left_out: a sentence for each run without results.
        scores: `scores.parquet` by run and benchmark.
        pairs: folders of pairs by mixture or benchmark.
        mixtures: by mixture or benchmark.
        tokens: by mixture and model.
        audits: each with the pairs whose label is most probably wrong.
        suspects: those that several runs scored; what a single run contradicts is among its hardest pairs.
    """

    results: list[EvaluationResult]
    left_out: list[str]
    scores: dict[tuple[str, str], Path]
    pairs: dict[str, Path]
    runs: list[TrainingRun]
    mixtures: dict[str, MixtureStatistics]
    tokens: dict[str, TokenManifest]
    comparisons: list[BenchmarkComparison]
    suspects: list[Suspect]
    choices: list[ChosenRun]
    curves: list[LearningCurve]
    audits: list[tuple[AuditResult, list[Suspect]]]
    scored: list[ScoredAnswers | PairsToLabel]

    @property
    def probes(self) -> set[str]:
        """The benchmarks that are probes."""
        return {name for name, stats in self.mixtures.items() if made_by_rule(stats)}

    def score_files(self, board: Leaderboard) -> dict[str, Path]:
        """The `scores.parquet` of each run of a leaderboard that has one."""
        runs = [one.run for entry in board.entries for one in entry.members]
        return {run: self.scores[run, board.benchmark] for run in runs if (run, board.benchmark) in self.scores}

    def differences(self, board: Leaderboard) -> dict[tuple[str, str], Difference]:
        """The known paired differences between entries of a leaderboard, by their names, in both directions."""
        known = [
            difference
            for one in self.comparisons
            if (one.benchmark, one.mixture or "") == (board.benchmark, board.mixture)
            for difference in one.differences
            if difference.known
        ]
        return {(one.first, one.second): one for difference in known for one in (difference, difference.flipped)}


def read_inputs(
    *,
    metrics: Sequence[Path],
    scores: Sequence[Path] = (),
    models: Sequence[Path] = (),
    stats: Sequence[Path] = (),
    tokens: Sequence[Path] = (),
    pairs: Sequence[Path] = (),
    suspects: Path | None = None,
    comparisons: Path | None = None,
    selections: Sequence[Path] = (),
    audits: Sequence[Path] = (),
    scored: Sequence[Path] = (),
) -> ReportData:
    """Read all files but scores and pairs, which are large; the folders above the files say what they belong to.

    Raises:
        UserError: a file is missing or damaged.
    """
    compared = ComparisonsFile.read(comparisons) if comparisons else ComparisonsFile(boards=[])
    results, left_out = read_all_results(metrics)
    return ReportData(
        results=results,
        left_out=left_out_lines(left_out),
        scores={(path.parent.parent.name, path.parent.name): path for path in scores},
        pairs={folder.parent.name: folder for folder in pairs},
        runs=sorted(map(_read_training_run, set(models)), key=lambda one: one.facts.run),
        mixtures={path.parent.name: MixtureStatistics.read(path) for path in sorted(set(stats))},
        tokens={
            f"{path.parent.parent.name}, {path.parent.name}": TokenManifest.read(path) for path in sorted(set(tokens))
        },
        comparisons=compared.boards,
        curves=compared.curves,
        suspects=[one for one in read_suspects(suspects) if one.runs > 1] if suspects else [],
        audits=[(AuditResult.read(path), read_suspects(path.with_name(SUSPECTS))) for path in audits],
        choices=[ChosenRun.read(path) for path in selections],
        scored=[read_account(path) for path in scored],
    )
