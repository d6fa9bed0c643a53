"""The runs that a configuration means: one for each seed, and ensembles of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from rewardline.evaluation.settings import HELD_OUT
from rewardline.workflow.config import Config, DatasetEntry


@dataclass(frozen=True)
class Run:
    """A training run with one seed; `name` is its entry in the configuration."""

    run_id: str
    name: str
    mixture: str
    model: str
    seed: int
    benchmarks: tuple[str, ...]


@dataclass(frozen=True)
class Ensemble:
    """Runs whose scores are combined; `mixture` and `model` are those of all members, joined by `+`."""

    run_id: str
    members: tuple[str, ...]
    mixture: str
    model: str
    benchmarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its entry in the configuration."""
        return self.run_id


def run_table(config: Config, selected: set[str] | None = None) -> list[Run]:
    """All runs: one for each seed of each entry (of those in `selected`, or in an ensemble of it, if given)."""
    table = []
    members = {run_id for name in config.ensembles.keys() & (selected or set()) for run_id in members_of(config, name)}
    for name, entry in sorted(config.runs.items()):
        for seed in entry.seeds:
            run_id = name if len(entry.seeds) == 1 else f"{name}-seed{seed}"
            if selected is None or name in selected or run_id in members:
                table.append(Run(run_id, name, entry.mixture, entry.model, seed, tuple(entry.benchmarks)))
    return table


def ensemble_table(config: Config, selected: set[str] | None = None) -> list[Ensemble]:
    """All ensembles (of those in `selected`, if given)."""
    table = []
    by_id = {run.run_id: run for run in run_table(config)}
    for name, entry in sorted(config.ensembles.items()):
        if selected is not None and name not in selected:
            continue
        members = [by_id[run_id] for run_id in members_of(config, name)]
        mixture, model = ("+".join(sorted({getattr(run, key) for run in members})) for key in ("mixture", "model"))
        table.append(Ensemble(name, tuple(run.run_id for run in members), mixture, model, tuple(entry.benchmarks)))
    return table


def members_of(config: Config, ensemble: str) -> list[str]:
    """The run ids of an ensemble's members; a run's name stands for all its seeds. Unknown names are left out."""
    table = run_table(config)
    found = [
        run.run_id for name in config.ensembles[ensemble].ensemble for run in table if name in (run.name, run.run_id)
    ]
    return list(dict.fromkeys(found))


def has_eval(config: Config, run: Run | Ensemble) -> bool:
    """Whether a run is judged on an eval split: that of its mixture, which the members of an ensemble must share."""
    return run.mixture in config.mixtures and config.mixtures[run.mixture].eval_fraction > 0


def judged_on(config: Config, run: Run | Ensemble) -> list[str]:
    """The benchmarks of a run, `eval` first if it has one."""
    return [HELD_OUT] * has_eval(config, run) + list(run.benchmarks)


def probe_benchmarks(config: Config) -> set[str]:
    """The names of the benchmarks that are made of a mixture's held-out pairs."""
    return {name for name, entry in config.benchmarks.items() if entry.probes is not None}


def sources(config: Config) -> dict[str, DatasetEntry]:
    """Everything that can be downloaded, by name: datasets and benchmarks, but for probes, which are made."""
    made = probe_benchmarks(config)
    return {**config.datasets, **{name: entry for name, entry in config.benchmarks.items() if name not in made}}


def joined_sources(config: Config, name: str) -> list[str]:
    """The datasets whose rows stand for ids in the rows of a dataset or benchmark."""
    return sorted({join.dataset for join in sources(config)[name].join.values()})


def tokenizer_mixture(config: Config, model: str) -> str | None:
    """The mixture that a model's own tokenizer is trained on; None for a model that has its tokenizer."""
    init = config.models[model].init
    return None if init is None else init.tokenizer.mixture


def used_sources(config: Config, runs: Iterable[Run]) -> list[str]:
    """The datasets and benchmarks that runs read, directly or through the mixture of a tokenizer."""
    names: set[str] = set()
    for run in runs:
        for mixture in {run.mixture, tokenizer_mixture(config, run.model)} - {None}:
            names |= set(config.mixtures[str(mixture)].datasets) | set(benchmarks_of_mixture(config, str(mixture)))
    return sorted(names.union(*(joined_sources(config, name) for name in names)))


def benchmarks_of_mixture(config: Config, mixture: str) -> list[str]:
    """The benchmarks of the runs that train on `mixture`; their prompts must not be in its training pairs.

    Probes are not among them: they are made of what the mixture holds out.
    """
    runs = (run for run in config.runs.values() if run.mixture == mixture)
    return sorted({benchmark for run in runs for benchmark in run.benchmarks} - probe_benchmarks(config))


def limits(config: Config, runs: Iterable[Run | Ensemble]) -> dict[str, dict[str, float]]:
    """The least accuracy that is asked for, by run id and benchmark."""
    found = {run.run_id: dict(config.all_runs[run.name].fail_below) for run in runs}
    return {run_id: own for run_id, own in found.items() if own}
