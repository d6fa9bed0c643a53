"""The configuration: five sections of typed entries, with every default filled in."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, PrivateAttr, Tag, model_validator

from rewardline.core.settings import Entries, EntriesOr, Integer, JsonObject, Number, Settings, Text, Unique
from rewardline.data.demo.settings import DemoSettings
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.pairs.settings import AugmentSettings, MixtureSettings, ProbeSettings, RelabelSettings
from rewardline.data.sources.settings import SourceSettings
from rewardline.evaluation.published.registry import BenchmarkScoring
from rewardline.evaluation.settings import HELD_OUT
from rewardline.model.settings import BaseModelSettings
from rewardline.scoring.settings import CombineSettings
from rewardline.scoring.stage_settings import Criterion, LabelOptions, ScoringOptions
from rewardline.tokens.settings import EncodingSettings
from rewardline.training.settings import TrainingSettings

SECTIONS = ("datasets", "mixtures", "models", "runs", "benchmarks", "audits")


class DatasetEntry(FormatSettings, SourceSettings):
    """A dataset: a source and how its rows become pairs."""

    demo: DemoSettings | None = Field(
        None,
        description="Built-in generator of preference pairs, whose rejected answers have one known flaw each: number"
        " of `pairs` (6000) and `seed` (1).",
    )
    shards: Integer = Field(
        1,
        ge=1,
        description="Number of jobs that convert the rows of a Hub dataset or of the demo. Each local file has a job"
        " of its own; formats that group rows need one job for all rows.",
    )


class BenchmarkEntry(DatasetEntry):
    """A benchmark: a source like that of a dataset, or probes."""

    scoring: BenchmarkScoring | None = Field(
        None,
        description="Published benchmark, by its name in the table below, whose own metrics are computed from the"
        " scores; all its pairs are then kept as they are. (The old name of this key, `arithmetic`, still works.)",
    )
    probes: ProbeSettings | None = Field(
        None,
        description="Instead of a source: held-out answers of a `mixture` paired with manipulated versions of them,"
        " for `prompts` (100) prompts sampled with a `seed` (0), see below.",
    )


def _datasets_or_made(schema: JsonObject) -> None:
    """Let the schema accept a mixture that is made of another one, whose datasets it has."""
    schema["required"] = []
    schema["anyOf"] = [{"required": [key]} for key in ("datasets", "audit", "augment")]


class MixtureEntry(RelabelSettings, AugmentSettings, MixtureSettings):
    """A mixture of datasets."""

    model_config = ConfigDict(json_schema_extra=_datasets_or_made)

    fractions: Unique[Annotated[Number, Field(gt=0, le=1)]] = Field(
        [],
        description="For a learning curve: every run on the mixture is a sweep over these values of `fraction`, such as"
        " `[0.125, 0.25, 0.5, 1]`.",
    )

    shards: Integer = Field(
        1,
        ge=1,
        description="Number of parallel jobs that clean and tokenize the pairs; the result does not depend on it.",
    )


class ModelEntry(EncodingSettings, BaseModelSettings):
    """A base model, and how text is tokenized for it."""


class EvaluatedEntry(Settings):
    """The benchmarks of a run or an ensemble."""

    benchmarks: Unique[Text] = Field(
        [],
        description="Names of benchmarks to evaluate on, in addition to the eval split of the mixture.",
    )
    fail_below: Entries[Annotated[Number, Field(ge=0, le=1)]] = Field(
        {},
        description="Minimum accuracy by benchmark, `eval` included: `{eval: 0.7, probes: 0.9}`. If a run is less"
        " accurate, the workflow fails after the report is written.",
    )


class TrainedEntry(EvaluatedEntry):
    """What training runs and sweeps have in common."""

    seeds: Unique[Annotated[Integer, Field(ge=0, lt=2**63)]] = Field(
        [0],
        min_length=1,
        description="Each seed is a training run of its own, with the run id `<run>-seed<seed>`; a single seed has the"
        " run id `<run>`.",
    )
    fraction: Number = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the training prompts to train on, by their hash: a small share is part of a larger one.",
    )
    training: TrainingSettings = Field(TrainingSettings(), description="Settings of the training run, see below.")


class RunEntry(TrainedEntry):
    """A training run, once for each seed."""

    mixture: Text = Field(description="Name of the mixture to train on.")
    model: Text = Field(description="Name of the model to train.")


class Halving(Settings):
    """Successive halving of the cells of a sweep."""

    factor: Integer = Field(3, ge=2, description="After each rung one of this many cells continues, the best ones.")
    min_steps: Integer = Field(
        ge=1, description="Steps of the first rung; each further one ends after `factor` times as many."
    )


class Grid(Settings):
    """Values by key of a run, such as `training.learning_rate`, beside the options of the sweep."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[JsonValue], Field(min_length=1)]]

    sample: Integer | None = Field(None, ge=1, description="Number of cells to draw; `null` trains all of them.")
    seed: Integer = Field(0, ge=0, description="Seed of the draw.")
    max_cells: Integer = Field(100, ge=1, description="Maximum number of cells without `sample`.")
    halving: Halving | None = Field(
        None,
        description="Successive halving: train all cells for `min_steps` steps, continue one of every `factor` (3), the"
        " best, and so on; see below.",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_dotted_keys(cls, data: object) -> object:
        for key, value in data.items() if isinstance(data, Mapping) else ():
            if key not in cls.model_fields and isinstance(value, Mapping) and value:
                raise ValueError(f"keys with dots that have lists of values: {key}.{next(iter(value))}: [...]")
        return data

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if not self.__pydantic_extra__:
            raise ValueError("lists of values by key, such as training.learning_rate: [1e-5, 5e-5]")
        return self

    @property
    def values(self) -> dict[str, list[JsonValue]]:
        """The values by key, sorted by key."""
        return dict(sorted(self.__pydantic_extra__.items()))


class SweepEntry(TrainedEntry):
    """A training run for each cell of a grid."""

    mixture: Text | None = Field(None, description="Name of the mixture to train on, unless the grid has it.")
    model: Text | None = Field(None, description="Name of the model to train, unless the grid has it.")
    grid: Grid = Field(
        description="Sweep: lists of values by key, `{training.learning_rate: [1e-5, 5e-5], model: [a, b]}`. Each"
        " combination of values (cell) is a run; see below, also for `sample`, `seed`, `max_cells` and `halving`."
    )


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


class Cell(Settings):
    """A cell of a sweep: its values by key."""

    sweep: str
    values: JsonObject
    halving: Halving | None = None


class EnsembleEntry(CombineSettings, EvaluatedEntry):
    """An ensemble of training runs."""

    ensemble: Unique[Text] = Field(
        min_length=1,
        description="Names of runs (all their seeds) or run ids whose scores are combined; nothing is trained, see"
        " below.",
    )


class AverageEntry(EvaluatedEntry):
    """A model whose weights are the mean of those of training runs."""

    average: Unique[Text] = Field(
        min_length=1,
        description="Names of runs (all their seeds) or run ids whose weights are averaged to one model; nothing is"
        " trained, see below.",
    )


class AuditEntry(Settings):
    """A search for wrong labels among the training pairs of a mixture."""

    mixture: Text = Field(description="Name of the mixture whose training labels are judged.")
    run: Text = Field(
        description="Name of a run: for each fold its model is trained, with its settings, `fraction` and first seed,"
        " on the training pairs of the mixture but those of the fold."
    )
    folds: Integer = Field(4, ge=2, le=100, description="Number of folds, each of which is a training run.")
    min_agreement: Number = Field(
        0.64,
        ge=0.5,
        lt=1,
        description="Labels are judged only by models that agree with clearly more of them than this: the lower end of"
        " the 95% interval is above it.",
    )


class Fold(Settings):
    """A fold of an audit, as a mixture and the run on it, which have one name; `number` from 0."""

    audit: str
    mixture: str
    number: int
    folds: int


class SelectEntry(Settings):
    """The choice of the best of several runs."""

    among: Annotated[
        Unique[Text],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=Text | Unique[Text]),
    ] = Field(
        alias="from",
        description="Name of a run or sweep, or a list of such names and run ids. The seeds of a run count together.",
    )
    by: Text = Field(
        HELD_OUT, description="What they are judged on: `eval`, or a benchmark that all of them are evaluated on."
    )
    name: Text = Field(alias="as", description="Name of the folder in `results/models` with the chosen model.")


def _kind_of_run(value: object) -> str:
    for key, kind in (("ensemble", "ensemble"), ("average", "average"), ("grid", "sweep")):
        if (value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)) is not None:
            return kind
    return "run"


AnyRun = Annotated[
    Annotated[RunEntry, Tag("run")]
    | Annotated[SweepEntry, Tag("sweep")]
    | Annotated[EnsembleEntry, Tag("ensemble")]
    | Annotated[AverageEntry, Tag("average")],
    Discriminator(_kind_of_run),
]


class ScoringEntry(ScoringOptions, SourceSettings):
    """Prompts with answers to score: a source, and the model that scores them."""

    run: Text = Field(
        description="What scores them: the id of a run, the name of one with a single seed, or that of a choice of"
        " `select`."
    )
    shards: Integer = Field(
        1,
        ge=1,
        description="Number of parallel jobs, on one GPU or some cores each. The scores do not depend on it.",
    )


class ToLabelEntry(LabelOptions, SourceSettings):
    """Prompts with several answers of which pairs are to be labeled: a source, and the models that choose."""

    runs: Annotated[
        Unique[Text],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=Text | Unique[Text]),
    ] = Field(
        description="Names of the models that choose: of runs (all their seeds), run ids, ensembles (all members),"
        " averages, or choices of `select`."
    )
    by: Criterion | None = Field(
        None,
        description="What makes a label worth asking for: `disagreement` between the models, or `uncertainty` of their"
        " mean probability. `null`: disagreement of several models, uncertainty of one.",
    )
    shards: Integer = Field(
        1,
        ge=1,
        description="Number of parallel jobs that score the rows with each model; the scores do not depend on it.",
    )


class EvaluationEntry(Settings):
    """How evaluations are computed."""

    shards: EntriesOr[Annotated[Integer, Field(ge=1)], Annotated[Integer, Field(ge=1)]] = Field(
        1,
        description="Number of parallel jobs that score the pairs of each benchmark and eval split, on one GPU or some"
        " cores each; or by benchmark, `{eval: 2, large: 8}`. The scores do not depend on it.",
    )

    def shards_of(self, benchmark: str) -> int:
        """The number of jobs that score a benchmark."""
        return self.shards if isinstance(self.shards, int) else self.shards.get(benchmark, 1)


class Config(Settings):
    """The configuration of rewardline."""

    datasets: Entries[DatasetEntry] = Field(
        description="Sources of preference data; each entry has a name and one source."
    )
    mixtures: Entries[MixtureEntry] = Field(
        description="Training data: weighted datasets, split by prompt into train and eval."
    )
    models: Entries[ModelEntry] = Field(description="Base models, and how text is tokenized for them.")
    all_runs: Entries[AnyRun] = Field(
        alias="runs",
        description="Training runs, ensembles and averages of them. If a configuration file given with --configfile"
        " names runs, only these are run.",
    )
    benchmarks: Entries[BenchmarkEntry] = Field(
        {},
        description="Benchmarks to evaluate on in addition to the eval split of the mixture; each entry has one"
        " source, like a dataset.",
    )

    audits: Entries[AuditEntry] = Field(
        {}, description="Searches for wrong labels; `mixtures.*.audit` makes a mixture without them."
    )
    scoring: Entries[ScoringEntry] = Field(
        {}, description="Prompts with answers to score with a trained model; each entry has one source."
    )
    to_label: Entries[ToLabelEntry] = Field(
        {}, description="Prompts with answers to choose pairs from that are to be labeled; each entry has one source."
    )
    evaluation: EvaluationEntry = Field(EvaluationEntry(), description="How evaluations are computed.")
    select: Annotated[
        list[SelectEntry], BeforeValidator(_listed, json_schema_input_type=SelectEntry | list[SelectEntry])
    ] = Field([], description="The choice of the best of several runs: an entry, or a list of them.")
    _cells: dict[str, Cell] = PrivateAttr({})
    _folds: dict[str, Fold] = PrivateAttr({})

    def expanded(self, runs: Mapping[str, RunEntry], cells: Mapping[str, Cell]) -> "Config":
        """The configuration with these training runs, some of them cells of sweeps; both by the name of the run."""
        result = self.model_copy(update={"all_runs": {**self.ensembles, **self.averages, **runs}})
        result._cells = dict(cells)  # of this class
        return result

    def with_folds(self) -> "Config":
        """The configuration with a mixture and a run for each fold of the audits whose mixture and run are defined."""
        mixtures, runs, folds = dict(self.mixtures), dict(self.all_runs), dict[str, Fold]()
        for audit, entry in self.audits.items():
            run = self.runs.get(entry.run)
            if run is None or run.model not in self.models or entry.mixture not in self.mixtures:
                continue
            # Nothing may be chosen by the labels that are judged.
            training = run.training.replace(
                eval_every=0, eval_sets={}, keep_best=False, early_stopping=None, normalize=False, loggers={}
            )
            for number in range(entry.folds):
                name = f"{audit}-fold{number}"
                folds[name] = Fold(audit=audit, mixture=entry.mixture, number=number, folds=entry.folds)
                mixtures[name] = self.mixtures[entry.mixture].replace(
                    eval_fraction=1 / entry.folds, select_fraction=None, fractions=[], shards=1
                )
                seeds, fraction = run.seeds[:1], run.fraction
                runs[name] = RunEntry(mixture=name, model=run.model, seeds=seeds, fraction=fraction, training=training)
        result = self.model_copy(update={"mixtures": mixtures, "all_runs": runs})
        result._folds = folds
        return result

    @property
    def folds(self) -> dict[str, Fold]:
        """The folds of all audits, by the name of their mixture and run."""
        return self._folds

    def source_of(self, mixture: str) -> str:
        """The mixture whose pairs those of a mixture are made of: of a fold or a cleaned one that of the audit."""
        if mixture in self.folds:
            return self.folds[mixture].mixture
        entry = self.mixtures.get(mixture)
        if entry is not None and entry.audit is not None:
            return self.audits[entry.audit].mixture
        return mixture if entry is None or entry.augment is None else entry.augment

    def reads_names(self, mixture: str) -> bool:
        """Whether a mixture reads names of systems in a column as system prompts."""
        entry = self.mixtures.get(mixture)
        datasets = [self.datasets[name] for name in entry.datasets if name in self.datasets] if entry else []
        return any(not dataset.fields.get("system", "=").startswith("=") for dataset in datasets)

    def unpaired(self, name: str) -> str | None:
        """Why no accuracy is known on a mixture's eval split or a benchmark, in words; None where there are pairs."""
        mixture = self.mixtures.get(self.source_of(name))
        names = [name] if mixture is None else list(mixture.datasets)
        entries = [self.benchmarks.get(one) if mixture is None else self.datasets.get(one) for one in names]
        if any(entry is None or not entry.is_rated for entry in entries):
            return None
        return f"{name} has rated single answers only, and no pairs"

    @property
    def cells(self) -> dict[str, Cell]:
        """The cells of all sweeps, by the name of their run."""
        return self._cells

    @property
    def sweeps(self) -> dict[str, SweepEntry]:
        """The sweeps, by name, as long as they are not expanded."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, SweepEntry)}

    @property
    def runs(self) -> dict[str, RunEntry]:
        """The training runs, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, RunEntry)}

    @property
    def ensembles(self) -> dict[str, EnsembleEntry]:
        """The ensembles, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, EnsembleEntry)}

    @property
    def averages(self) -> dict[str, AverageEntry]:
        """The averages, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, AverageEntry)}

    def members(self, name: str) -> list[str]:
        """The names and run ids that an ensemble or an average is made of."""
        entry = self.all_runs[name]
        return entry.ensemble if isinstance(entry, EnsembleEntry) else getattr(entry, "average", [])
