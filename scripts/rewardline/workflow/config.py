"""The configuration: five sections of typed entries, with every default filled in."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from rewardline.core.settings import Entries, Integer, Number, Settings, Text, Unique
from rewardline.data.demo.settings import DemoSettings
from rewardline.data.formats.settings import BenchmarkScoring, FormatSettings
from rewardline.data.pairs.settings import MixtureSettings, ProbeSettings
from rewardline.data.sources.settings import SourceSettings
from rewardline.evaluation.settings import CombineSettings
from rewardline.model.settings import BaseModelSettings
from rewardline.tokens.settings import EncodingSettings
from rewardline.training.settings import TrainingSettings

SECTIONS = ("datasets", "mixtures", "models", "runs", "benchmarks")


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
        description="Published benchmark whose own metrics are computed from the scores, see below: `rewardbench`,"
        " `rewardbench2`, `rm_bench` or `judgebench`; all its pairs are then kept as they are. (The old name of this"
        " key, `arithmetic`, still works.)",
    )
    probes: ProbeSettings | None = Field(
        None,
        description="Instead of a source: held-out answers of a `mixture` paired with manipulated versions of them,"
        " for `prompts` (100) prompts sampled with a `seed` (0), see below.",
    )


class MixtureEntry(MixtureSettings):
    """A mixture of datasets."""

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


class RunEntry(EvaluatedEntry):
    """A training run, once for each seed."""

    mixture: Text = Field(description="Name of the mixture to train on.")
    model: Text = Field(description="Name of the model to train.")
    seeds: Unique[Annotated[Integer, Field(ge=0)]] = Field(
        [0],
        min_length=1,
        description="Each seed is a training run of its own, with the run id `<run>-seed<seed>`; a single seed has the"
        " run id `<run>`.",
    )
    training: TrainingSettings = Field(TrainingSettings(), description="Settings of the training run, see below.")


class EnsembleEntry(CombineSettings, EvaluatedEntry):
    """An ensemble of training runs."""

    ensemble: Unique[Text] = Field(
        min_length=1,
        description="Names of runs (all their seeds) or run ids whose scores are combined; nothing is trained, see"
        " below.",
    )


def _kind_of_run(value: object) -> str:
    members = value.get("ensemble") if isinstance(value, Mapping) else getattr(value, "ensemble", None)
    return "run" if members is None else "ensemble"


AnyRun = Annotated[
    Annotated[RunEntry, Tag("run")] | Annotated[EnsembleEntry, Tag("ensemble")], Discriminator(_kind_of_run)
]


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
        description="Training runs and ensembles of them. If a configuration file given with --configfile names runs,"
        " only these are run.",
    )
    benchmarks: Entries[BenchmarkEntry] = Field(
        {},
        description="Benchmarks to evaluate on in addition to the eval split of the mixture; each entry has one"
        " source, like a dataset.",
    )

    @property
    def runs(self) -> dict[str, RunEntry]:
        """The training runs, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, RunEntry)}

    @property
    def ensembles(self) -> dict[str, EnsembleEntry]:
        """The ensembles, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, EnsembleEntry)}
