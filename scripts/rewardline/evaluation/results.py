"""The result of an evaluation, `metrics.json`: the typed model that is written and read everywhere.

An unknown number is NaN here and `null` in the file. A missing key is unknown, so that older files are read too; keys
for which the data has no values are left out of the file. Imports nothing slow.
"""

import math
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from rewardline.core.artifacts import read_manifest, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.settings import JsonObject
from rewardline.evaluation.settings import HELD_OUT

NAN = math.nan


def _nan_for_null(value: object) -> object:
    return NAN if value is None else value


def _null_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _share(value: float) -> float:
    if value < 0 or value > 1:
        raise ValueError("should be a share from 0 to 1")
    return value


def _empty_for_null(value: object) -> object:
    return {} if value is None else value


Name = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_nan_for_null), PlainSerializer(_null_for_nan)]
Share = Annotated[Number, AfterValidator(_share)]


class Result(BaseModel):
    """A part of a file of results: typed strictly, frozen; unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, populate_by_name=True, defer_build=True)

    def as_json(self) -> JsonObject:
        """The keys that were given, as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class ResultFile(Result):
    """A JSON file of results."""

    content: ClassVar[str]
    stage: ClassVar[str]
    """What the file holds and the stage that writes it, for messages."""
    depth: ClassVar[int] = 0
    """As for `write_sealed`."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; names in it become `printable`.

        Raises:
            UserError: it is missing, damaged or another file.
        """
        try:
            return cls.model_validate(_printable_texts(read_manifest(path)))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "content"
            reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
            problem = "is missing" if first["type"] == "missing" else f"is {reprlib.repr(first['input'])}, but {reason}"
            remedy = f"delete it and run the {cls.stage} stage again"
            raise UserError(f"{path} does not hold {cls.content}: {key!r} {problem}; {remedy}") from error

    def write(self, path: Path, files: Iterable[str] = ()) -> None:
        """Write the keys that were given, with the hashes of `files` beside it; the file appears complete."""
        write_sealed(path, self.as_json(), files, self.depth)


class Rates(Result):
    """Shares over `n` pairs. `low` and `high` bound the accuracy (95%).

    `length` is how often the longer answer is the chosen one, ties half.
    """

    n: Count
    accuracy: Share
    low: Share = Field(NAN, alias="accuracy_low")
    high: Share = Field(NAN, alias="accuracy_high")
    length: Share = Field(NAN, alias="length_accuracy")

    @property
    def baseline(self) -> float:
        """The accuracy of the better of two rules that see only length: pick the longer, or pick the shorter."""
        return max(self.length, 1 - self.length)

    def overlaps(self, other: "Rates") -> bool:
        """Whether the two intervals share a value; also true where one of them is unknown."""
        return not (self.high < other.low or self.low > other.high)


class Accuracy(Result):
    """The accuracy of some of the pairs or prompts, and its 95% interval."""

    accuracy: Share
    accuracy_low: Share = NAN
    accuracy_high: Share = NAN

    def rates(self, n: int, length: float = NAN) -> Rates:
        """The accuracy as rates over `n` pairs or prompts."""
        return Rates(n=n, accuracy=self.accuracy, low=self.accuracy_low, high=self.accuracy_high, length=length)


class Bin(Accuracy):
    """The accuracy for the pairs whose quantity is from `low` to `high`.

    `confidence`: the mean probability that the run gives to the answers it prefers; only bins of confidence have it.
    """

    low: float
    high: float
    n: Count
    confidence: Number = NAN


class Calibration(Result):
    """See `metrics.calibration`."""

    ece: Number = NAN
    temperature: Number = NAN
    loss_at_temperature: Number = NAN
    ece_at_temperature: Number = NAN
    bins: list[Bin] = []


class LengthBias(Result):
    """The effect of length on the scores; see `metrics.length`."""

    correlation: Number = NAN
    controlled_accuracy: Share = NAN
    controlled_low: Share = NAN
    controlled_high: Share = NAN
    controlled_pairs: Count = 0
    by_difference: list[Bin] = []


class BestOfN(Accuracy):
    """How often the best of several answers to a prompt has the greatest score; see `metrics.answers`."""

    prompts: Count
    answers: Number = NAN
    chance: Number = NAN


class WinRate(Result):
    """How often a source of answers wins its `n` pairs: by the labels, and by the run's scores (`model`)."""

    source: str
    n: Count = 0
    labelled: Number = NAN
    model: Number = NAN


class Section(Result):
    """The score of a section of a published benchmark, and the number of its rows; a row is a pair or a list."""

    score: Number = NAN
    n: Count = 0


class Baseline(Result):
    """A published benchmark's figures for scores that see no content: the scores of its sections, by name."""

    overall: Number = NAN
    sections: dict[str, Number] = {}


class BestOfNPoint(Result):
    """Best-of-n: the mean over prompts of the gold score of the answer with the greatest score, and its 95% interval.

    `kl` is the divergence from the policy in nats, `best` the gold score that the best possible scores would reach, and
    `score` the score of the answer itself.
    """

    n: Count
    kl: float
    gold: Number
    gold_low: Number = NAN
    gold_high: Number = NAN
    best: Number = NAN
    score: Number = NAN


class BestOfNCurve(Result):
    """A best-of-n curve over `prompts` rows of a benchmark; `left_out` rows have fewer answers than most."""

    prompts: Count
    left_out: Count = 0
    points: list[BestOfNPoint] = []


class PublishedFigures(Result):
    """A published benchmark's own figures; see `evaluation.published`. Shares are from 0 to 1, correlations from -1.

    `missing` are sections without rows, which `overall` leaves out. `incomplete` counts rows with answers that have no
    score, which are left out. `left_out`: rows and pairs without a score, by reason. `baselines` are the figures of
    picking the longest, the shortest and the first answer.
    """

    arithmetic: str = ""
    overall: Number = NAN
    sections: dict[str, Section] = {}
    missing: list[str] = []
    incomplete: Count = 0
    left_out: dict[str, Count] = {}
    baselines: dict[str, Baseline] = {}
    curve: BestOfNCurve | None = None


class PredictedAttribute(Result):
    """An output of a model: the rating that it predicts, standardized by `mean` and `std`; its weight in the score."""

    name: Name
    mean: float
    std: float
    weight: float


class RatingMetrics(Accuracy):
    """How well a rating of `n` single answers is predicted; see `metrics.ratings`.

    `accuracy` is over `pairs` of answers to one prompt; `mse_of_mean` is the error of always predicting the mean of the
    training answers.
    """

    n: Count
    accuracy: Share = NAN
    spearman: Number = NAN
    kendall: Number = NAN
    mse: Number = NAN
    mse_of_mean: Number = NAN
    pairs: Count = 0


class Metrics(Accuracy):
    """The metrics of scored pairs, without the identity of the run: docs/metrics.md explains each key."""

    n: Count
    length_accuracy: Share = NAN
    prompts: Count = 0
    weighted_accuracy: Share = NAN
    weighted_accuracy_low: Share = NAN
    weighted_accuracy_high: Share = NAN
    scale: Number = NAN
    loss: Number = NAN
    chosen_mean: Number = NAN
    rejected_mean: Number = NAN
    chosen_std: Number = NAN
    rejected_std: Number = NAN
    margin_mean: Number = NAN
    margin_std: Number = NAN
    calibration: Annotated[Calibration, BeforeValidator(_empty_for_null)] = Calibration()
    length: Annotated[LengthBias, BeforeValidator(_empty_for_null)] = LengthBias()
    by_margin: list[Bin] = []
    best_of_n: BestOfN | None = None
    win_rates: list[WinRate] = []
    by_subset: Annotated[dict[str, Rates], BeforeValidator(_empty_for_null)] = {}

    @property
    def total(self) -> Rates:
        """The rates of all pairs."""
        return self.rates(self.n, self.length_accuracy)

    @property
    def controlled(self) -> Rates:
        """The accuracy with the effect of length taken out."""
        accuracy, low, high = self.length.controlled_accuracy, self.length.controlled_low, self.length.controlled_high
        return Rates(n=self.n, accuracy=accuracy, low=low, high=high)


class Identity(Result):
    """Which run is evaluated on what. `name` is the run's in the configuration, which its seeds have in common."""

    run: Name
    name: Name | None = None
    mixture: Name
    model: Name
    seed: int | None = None
    benchmark: Name


class Standard(Result):
    """Mean and standard deviation of a member's scores, by which an ensemble standardizes them."""

    mean: float
    std: float


class ScoreNormalization(Standard):
    """Those of a model's raw scores, by which its scores are normalized; see `model.normalization`."""

    folded: bool = False
    mean_left: float = 0.0


class EvaluationResult(ResultFile, Metrics, Identity):
    """One run on one benchmark: the content of a `metrics.json`.

    `sections`: the figures of a published benchmark, None for others. An ensemble combines the scores of the runs
    `ensemble` by `combine`; `unscored` pairs were not scored by all of them. The weights of a model may be the mean of
    those of the runs `average`. `diverged`, `eliminated_at`: as in `run.json`. `incomplete`, which is not in the file:
    the training of another seed has diverged. `ratings`: metrics of single answers by rating, `rating_sum`: those of
    the weighted sum of `attributes`, which the outputs of the model are.
    """

    content = "metrics"
    stage = "evaluate"
    depth = 2

    sections: PublishedFigures | None = None
    ratings: dict[str, RatingMetrics] = {}
    attributes: list[PredictedAttribute] = []
    rating_sum: RatingMetrics | None = None
    normalization: ScoreNormalization | None = None
    ensemble: list[str] = []
    average: list[str] = []
    combine: str = ""
    variance_weight: Number = NAN
    standards: dict[str, Standard] = {}
    unscored: Count = 0
    diverged: str | None = None
    eliminated_at: int | None = None
    incomplete: bool = False

    @property
    def left_out(self) -> str | None:
        """Why no pair was scored; None for others."""
        if self.diverged is not None:
            return f"its training has diverged ({self.diverged})"
        if self.n == 0 and self.eliminated_at is not None:
            return f"successive halving has eliminated it after step {self.eliminated_at:,}"
        return None

    @property
    def mark(self) -> str:
        """Why the run does not compete with others, in a word; empty if it does."""
        if self.incomplete:
            return "a seed diverged"
        if self.diverged is not None:
            return "diverged"
        return "" if self.eliminated_at is None else "eliminated"

    @property
    def family(self) -> str:
        """The run's name in the configuration; else the run id without its seed."""
        return self.run.removesuffix(f"-seed{self.seed}") if self.name is None else self.name


def read_results(paths: Iterable[Path]) -> list[EvaluationResult]:
    """Read `metrics.json` files, sorted by mixture, model, run and benchmark with `eval` first, but for those left out.

    Raises:
        UserError: a file is missing, damaged or another one, or repeats a run and benchmark.
    """
    return read_all_results(paths)[0]


def read_all_results(paths: Iterable[Path]) -> tuple[list[EvaluationResult], list[EvaluationResult]]:
    """As `read_results`, and those that are left out."""
    files: dict[tuple[str, str], Path] = {}
    results = []
    for path in paths:
        results.append(result := EvaluationResult.read(path))
        if first := files.get((result.run, result.benchmark)):
            raise UserError(f"{path} repeats run {result.run!r} on benchmark {result.benchmark!r}, already in {first}")
        files[result.run, result.benchmark] = path
    results.sort(key=lambda r: (r.mixture, r.model, r.run, r.benchmark != HELD_OUT, r.benchmark))
    diverged = {(one.mixture, one.model, one.family) for one in results if one.diverged is not None}
    measured = [
        one.model_copy(update={"incomplete": True}) if (one.mixture, one.model, one.family) in diverged else one
        for one in results
        if one.left_out is None
    ]
    return measured, [one for one in results if one.left_out is not None]


def left_out_lines(results: Iterable[EvaluationResult]) -> list[str]:
    """A sentence for each run whose training has diverged; of `read_all_results`, those left out."""
    reasons = {one.run: one.left_out for one in results if one.diverged is not None}
    return [f"{run} is left out: {reason}" for run, reason in reasons.items()]


def printable(text: str) -> str:
    """`text` on one line without control characters: names come from data and must not steer a terminal or a page."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _printable_texts(value: object) -> object:
    """A JSON value with all texts and keys `printable`; equal keys then get a number."""
    if isinstance(value, list):
        return [_printable_texts(item) for item in value]
    if not isinstance(value, dict):
        return printable(value) if isinstance(value, str) else value
    result: dict[str, object] = {}
    for key, item in value.items():
        shown, number = printable(key) or "(none)", 2
        while shown in result:
            shown, number = f"{printable(key)} ({number})", number + 1
        result[shown] = _printable_texts(item)
    return result
