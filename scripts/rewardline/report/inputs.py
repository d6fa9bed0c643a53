"""The files that the report is made from, read and typed."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.core.settings import JsonObject
from rewardline.data.pairs.pair_statistics import MixtureStatistics
from rewardline.data.pairs.probes import made_by_rule
from rewardline.data.parquet import reading
from rewardline.data.schema import PAIR_SCHEMA, Pair
from rewardline.evaluation.comparisons import BenchmarkComparison, ComparisonsFile, Difference
from rewardline.evaluation.leaderboards import Leaderboard
from rewardline.evaluation.results import EvaluationResult, read_results
from rewardline.evaluation.scores import read_table
from rewardline.evaluation.suspects import Suspect, read_suspects

Floats = NDArray[np.float64]
NAN = math.nan
SCORES = ("chosen_score", "rejected_score")
LOGGED = tuple(
    f"{split}{field}" for split in ("", "eval_") for field in ("loss", "accuracy", "chosen_mean", "rejected_mean")
)


@dataclass(frozen=True)
class ReportInputs:
    """The files that the report is made from; the names of the folders above them match scores to metrics."""

    metrics: Sequence[Path]
    scores: Sequence[Path] = ()
    models: Sequence[Path] = ()
    stats: Sequence[Path] = ()
    tokens: Sequence[Path] = ()
    pairs: Sequence[Path] = ()
    suspects: Path | None = None
    comparisons: Path | None = None


class Record(BaseModel):
    """A JSON object of another stage. A key that is missing or malformed has its default: the report shows the rest."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            UserError: it is missing, damaged or holds no object.
        """
        value = read_json(path)
        if not isinstance(value, dict):
            raise UserError(f"{path} does not hold an object; delete it and run the stage that makes it again")
        return cls.model_validate(value)

    @field_validator("*", mode="wrap")
    @classmethod
    def _default_if_malformed(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].get_default(call_default_factory=True)


class GitState(Record):
    """The commit of the code, and whether files differed from it."""

    commit: str = ""
    dirty: bool = False


class RunRecord(Record):
    """How a model was trained: `run.json`."""

    run: str = ""
    mixture: str = ""
    model: str = ""
    seed: int | None = None
    parameters: float = NAN
    trained_parameters: float = NAN
    train_pairs: int | None = None
    steps: float = NAN
    pairs: float = NAN
    tokens: float = NAN
    seconds: float = NAN
    tokens_per_second: float = NAN
    device: str = ""
    world_size: float = NAN
    git: GitState = GitState()
    training: JsonObject = {}
    versions: JsonObject = {}
    hardware: JsonObject = {}

    @property
    def others(self) -> JsonObject:
        """What the report has no place of its own for."""
        return self.model_dump(include={"train_pairs", *(self.model_extra or {})}, exclude_unset=True)


class SplitCounts(Record):
    """The size of a split in tokens."""

    pairs: float = NAN
    comparisons: float = NAN
    tokens: float = NAN
    prefix_tokens: float = NAN
    full_tokens: float = NAN


class TokenCounts(Record):
    """The size of a mixture in tokens: the `manifest.json` of its tokens."""

    splits: dict[str, SplitCounts] = {}
    truncated_pairs: float = NAN
    truncated_tokens: float = NAN
    dropped: dict[str, float] = {}

    @property
    def totals(self) -> SplitCounts:
        """The sums over the splits; NaN where no split has a number."""
        found = {
            key: [value for one in self.splits.values() if math.isfinite(value := getattr(one, key))]
            for key in SplitCounts.model_fields
        }
        return SplitCounts(**{key: sum(values) if values else NAN for key, values in found.items()})

    @property
    def truncated_share(self) -> float:
        """The share of pairs that lost tokens to the length limit; NaN where unknown."""
        return ratio(self.truncated_pairs, self.totals.pairs)


def ratio(part: float, total: float) -> float:
    """`part / total`; NaN where either is unknown or the total is 0."""
    return part / total if total else NAN


@dataclass(frozen=True)
class Curve:
    """Values over optimiser steps, in order; a value that was not finite is NaN."""

    steps: Floats
    values: Floats

    @property
    def final(self) -> float:
        """The mean over the last twentieth of the curve, NaN without a value there."""
        tail = self.values[-max(1, len(self.values) // 20) :]
        tail = tail[np.isfinite(tail)]
        return float(tail.mean()) if tail.size else NAN

    @property
    def known(self) -> bool:
        """Whether there is any value."""
        return bool(np.isfinite(self.values).any())


@dataclass(frozen=True)
class TrainingRun:
    """How one run was trained, and its log as one curve per field."""

    run: str
    record: RunRecord
    curves: dict[str, Curve]

    def curve(self, field: str) -> Curve:
        """The curve of a field of the log; empty where the log lacks it."""
        return self.curves.get(field, Curve(np.empty(0), np.empty(0)))


def read_training_run(folder: Path) -> TrainingRun:
    """Read `run.json` and `log.jsonl` of a trained model; a `UserError` names the file and line that is damaged."""
    record = RunRecord.read(folder / "run.json")
    return TrainingRun(record.run or folder.name, record, read_log(folder / "log.jsonl"))


def read_log(path: Path) -> dict[str, Curve]:
    """The curve of each field of a `log.jsonl`; a `UserError` names the line that is damaged."""
    points: dict[str, dict[float, float]] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    line = json.loads(text)
                    step = float(line["step"])
                except (ValueError, KeyError, TypeError) as error:
                    message = f"{path} line {number} is damaged ({error}); delete {path.parent} and train again"
                    raise UserError(message) from error
                for field in LOGGED:
                    if isinstance(value := line.get(field), int | float):
                        points.setdefault(field, {})[step] = value if math.isfinite(value) else NAN
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run the train stage first") from error
    arrays = {field: np.array(sorted(values.items()), dtype=np.float64) for field, values in points.items()}
    return {field: Curve(array[:, 0], array[:, 1]) for field, array in arrays.items()}


def read_scores(path: Path) -> tuple[Floats, Floats]:
    """The chosen and rejected scores [n] of a `scores.parquet`, NaN where missing."""
    return score_arrays(read_table(path, SCORES))


def score_arrays(table: pa.Table) -> tuple[Floats, Floats]:
    """The columns `SCORES` of a table."""
    chosen, rejected = (table[name].to_numpy().astype(np.float64) for name in SCORES)
    return chosen, rejected


def read_pairs_of(folder: Path, ids: Sequence[str]) -> dict[str, Pair]:
    """The pairs with these ids among the Parquet parts of a folder, which are read a batch at a time."""
    if not ids:
        return {}
    with reading(folder):
        data = ds.dataset(sorted(map(str, folder.glob("part-*.parquet"))), schema=PAIR_SCHEMA, format="parquet")
        table = data.to_table(filter=ds.field("pair_id").isin(list(ids)), batch_size=1024)
    return {row["pair_id"]: Pair(**row) for row in table.to_pylist()}


@dataclass(frozen=True)
class ReportData:
    """What the report is made of.

    Attributes:
        scores: the `scores.parquet` by run and benchmark.
        pairs: folders of pairs by mixture or benchmark.
        mixtures: by mixture or benchmark.
        tokens: by mixture and model.
    """

    results: list[EvaluationResult]
    scores: dict[tuple[str, str], Path]
    pairs: dict[str, Path]
    runs: list[TrainingRun]
    mixtures: dict[str, MixtureStatistics]
    tokens: dict[str, TokenCounts]
    comparisons: list[BenchmarkComparison]
    suspects: list[Suspect]

    @property
    def probes(self) -> set[str]:
        """The benchmarks that are probes."""
        return {name for name, stats in self.mixtures.items() if made_by_rule(stats.as_json())}

    def score_files(self, board: Leaderboard) -> dict[str, Path]:
        """The `scores.parquet` of each run of a leaderboard that has one."""
        runs = [one.run for entry in board.entries for one in entry.members]
        return {run: self.scores[run, board.benchmark] for run in runs if (run, board.benchmark) in self.scores}

    def differences(self, board: Leaderboard) -> list[Difference]:
        """The paired differences between the runs of a leaderboard, as far as they are known."""
        return [
            difference
            for one in self.comparisons
            if (one.benchmark, one.mixture or "") == (board.benchmark, board.mixture)
            for difference in one.differences
            if difference.known
        ]


def read_inputs(inputs: ReportInputs) -> ReportData:
    """Read all files but scores and pairs, which are large; a `UserError` names one that is missing or damaged."""
    suspects = read_suspects(inputs.suspects) if inputs.suspects else []
    return ReportData(
        results=read_results(inputs.metrics),
        scores={(path.parent.parent.name, path.parent.name): path for path in inputs.scores},
        pairs={folder.parent.name: folder for folder in inputs.pairs},
        runs=sorted((read_training_run(folder) for folder in set(inputs.models)), key=lambda one: one.run),
        mixtures={path.parent.name: MixtureStatistics.read(path) for path in sorted(set(inputs.stats))},
        tokens={
            f"{path.parent.parent.name}, {path.parent.name}": TokenCounts.read(path)
            for path in sorted(set(inputs.tokens))
        },
        comparisons=ComparisonsFile.read(inputs.comparisons).boards if inputs.comparisons else [],
        suspects=[one for one in suspects if one.runs > 1],  # what one run contradicts is among its hardest pairs
    )
