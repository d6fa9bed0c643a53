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
        None, description="The embedded generator of preference pairs with one labelled flaw each."
    )
    shards: Integer = Field(
        1,
        ge=1,
        description="Jobs that convert the rows of a hub dataset or of the demo; each local file is a job of its own.",
    )


class BenchmarkEntry(DatasetEntry):
    """A benchmark: like a dataset, or probes."""

    scoring: BenchmarkScoring | None = Field(
        None,
        description="How a published benchmark computes its figures from the scores: `rewardbench`, `rewardbench2`,"
        " `rm_bench` or `judgebench`; its pairs are then all kept as they are. (Its old name, `arithmetic`, still"
        " works.)",
    )
    probes: ProbeSettings | None = Field(
        None,
        description="In place of a source: held-out answers of a `mixture` against hacks of them, for `prompts` (100)"
        " prompts that a `seed` (0) draws.",
    )


class MixtureEntry(MixtureSettings):
    """A mixture of datasets."""

    shards: Integer = Field(
        1, ge=1, description="Jobs that clean and tokenise the pairs, side by side; the result is the same."
    )


class ModelEntry(EncodingSettings, BaseModelSettings):
    """A base model, and how text becomes tokens for it."""


class JudgedEntry(Settings):
    """What a run or an ensemble is judged on."""

    benchmarks: Unique[Text] = Field(
        [],
        description="Names of benchmarks, beside the mixture's own eval split.",
    )
    fail_below: Entries[Annotated[Number, Field(ge=0, le=1)]] = Field(
        {},
        description="Least accuracy by benchmark, `eval` among them: `{eval: 0.7, probes: 0.9}`. A run that is less"
        " accurate makes the workflow fail, once the report is written.",
    )


class RunEntry(JudgedEntry):
    """A training run, once for each seed."""

    mixture: Text = Field(description="Name of a mixture.")
    model: Text = Field(description="Name of a model.")
    seeds: Unique[Annotated[Integer, Field(ge=0)]] = Field(
        [0],
        min_length=1,
        description="Each seed is a training run of its own, `<run>-seed<seed>`.",
    )
    training: TrainingSettings = Field(TrainingSettings(), description="As follows.")


class EnsembleEntry(CombineSettings, JudgedEntry):
    """An ensemble of training runs."""

    ensemble: Unique[Text] = Field(
        min_length=1,
        description="Names of runs (all their seeds) or run ids whose scores are combined; nothing is trained, see"
        " below.",
    )


def _kind_of_run(value: object) -> str:
    if isinstance(value, Mapping):
        return "ensemble" if value.get("ensemble") is not None else "run"
    return "ensemble" if isinstance(value, EnsembleEntry) else "run"


AnyRun = Annotated[
    Annotated[RunEntry, Tag("run")] | Annotated[EnsembleEntry, Tag("ensemble")], Discriminator(_kind_of_run)
]


class Config(Settings):
    """The configuration of rewardline."""

    datasets: Entries[DatasetEntry] = Field(description="Where preferences come from: a name and a source each.")
    mixtures: Entries[MixtureEntry] = Field(
        description="What is trained on: datasets, split by prompt into train and eval."
    )
    models: Entries[ModelEntry] = Field(description="What is trained, and how text becomes tokens for it.")
    all_runs: Entries[AnyRun] = Field(
        alias="runs",
        description="Training runs and ensembles of them. A configuration file given with --configfile that names runs"
        " selects them; others are left alone.",
    )
    benchmarks: Entries[BenchmarkEntry] = Field(
        {}, description="What runs are judged on besides the mixture's own eval split: a source each, like a dataset."
    )

    @property
    def runs(self) -> dict[str, RunEntry]:
        """The training runs, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, RunEntry)}

    @property
    def ensembles(self) -> dict[str, EnsembleEntry]:
        """The ensembles, by name."""
        return {name: entry for name, entry in self.all_runs.items() if isinstance(entry, EnsembleEntry)}
