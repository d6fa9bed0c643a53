"""The runs of a configuration, one for each seed, its ensembles, and the data that they use."""

from collections.abc import Iterable
from math import inf

from rewardline.core.hashing import canonical
from rewardline.core.settings import Settings
from rewardline.data.sources.settings import SourceSettings
from rewardline.evaluation.settings import HELD_OUT
from rewardline.workflow.audits import used_audits
from rewardline.workflow.config import Config, DatasetEntry


class Run(Settings):
    """A training run with one seed; `name` is its entry in the configuration, `sweep` that whose cell it is."""

    run_id: str
    name: str
    sweep: str | None = None
    mixture: str
    model: str
    seed: int | None
    benchmarks: tuple[str, ...]


class Ensemble(Run):
    """Runs whose scores are combined; `mixture` and `model` are the names of all members, joined by `+`."""

    members: tuple[str, ...]
    """Run ids."""


class Average(Run):
    """A model with the mean of the weights of runs; `mixture` and `model` as for `Ensemble`."""

    members: tuple[str, ...]
    """Run ids."""
    first: Run


class RunChoice(Settings):
    """The choice of one of several training runs; `runs` are their run ids, `mixture` that of the first."""

    name: str
    benchmark: str
    mixture: str
    runs: tuple[str, ...]


class ScoringJob(Settings):
    """The scoring of a source with the model in the folder of `run`; `trained` is a run with the same settings.

    `mixtures`: what the model may be trained on.
    """

    name: str
    run: str
    trained: Run
    mixtures: tuple[str, ...]
    shards: int


class LabelingJob(Settings):
    """The choice of pairs to label, by the scores of `members`; `mixtures`: what these may be trained on."""

    name: str
    members: tuple[ScoringJob, ...]
    mixtures: tuple[str, ...]


class HalvedSweep(Settings):
    """A sweep with successive halving: the run ids of each cell that competes, and the steps of the rungs."""

    cells: dict[str, list[str]]
    factor: int
    steps: list[int]

    def kept(self, rung: int) -> int:
        """How many cells continue after a rung (from 0)."""
        return int(len(self.cells) // self.factor ** (rung + 1))

    @property
    def runs(self) -> list[str]:
        """The run ids of all cells."""
        return [run for runs in self.cells.values() for run in runs]


def halved_sweeps(config: Config) -> dict[str, HalvedSweep]:
    """The sweeps with successive halving, by name. Cells that differ in their fraction of the data alone are one."""
    result: dict[str, HalvedSweep] = {}
    halvings = {cell.sweep: cell.halving for cell in config.cells.values() if cell.halving}
    table = run_table(config) if halvings else []
    for sweep, halving in halvings.items():
        names: dict[str, str] = {}
        cells: dict[str, list[str]] = {}
        for run in table:
            if run.sweep == sweep:
                values = {key: value for key, value in config.cells[run.name].values.items() if key != "fraction"}
                cells.setdefault(names.setdefault(canonical(values), run.name), []).append(run.run_id)
        longest = max(config.runs[run.name].training.max_steps or inf for run in table if run.sweep == sweep)
        steps, left = [halving.min_steps], len(cells) // halving.factor
        while left >= halving.factor and steps[-1] * halving.factor < longest:
            steps.append(steps[-1] * halving.factor)
            left //= halving.factor
        result[sweep] = HalvedSweep(cells=cells, factor=halving.factor, steps=steps)
    return result


def run_table(config: Config, selected: set[str] | None = None) -> list[Run]:
    """One run for each seed of each entry; if `selected` is given, of these and of what is made of them."""
    every = []
    for name, entry in sorted(config.runs.items()):
        sweep = config.cells[name].sweep if name in config.cells else None
        for seed in entry.seeds:
            run_id = name if len(entry.seeds) == 1 else f"{name}-seed{seed}"
            every.append(entry.narrow(Run, run_id=run_id, name=name, sweep=sweep, seed=seed))
    if selected is None:
        return every
    made = (config.ensembles.keys() | config.averages.keys()) & selected
    members = {run_id for name in made for run_id in members_of(config, name)}
    members |= {run_id for choice in choice_table(config, selected) for run_id in choice.runs}
    for halved in halved_sweeps(config).values():  # whose cells need each other
        members |= set(halved.runs) if members & set(halved.runs) else set()
    members |= {run.run_id for run in every if selected & {run.name, run.sweep}}
    used = [run for run in every if run.run_id in members]
    read = {run.mixture for run in used} | {tokenizer_mixture(config, run.model) for run in used}
    audits = used_audits(config, selected, read)
    members |= {name for name, fold in config.folds.items() if fold.audit in audits}
    return [run for run in every if run.run_id in members]


def ensemble_table(config: Config, selected: set[str] | None = None) -> list[Ensemble]:
    """All ensembles; if `selected` is given, only these."""
    table = []
    runs = {run.run_id: run for run in run_table(config)}
    for name, entry in sorted(config.ensembles.items()):
        if selected is None or name in selected:
            members = members_of(config, name)
            mixture, model = (
                "+".join(sorted({getattr(runs[one], key) for one in members})) for key in ("mixture", "model")
            )
            names = {"run_id": name, "name": name, "mixture": mixture, "model": model}
            table.append(entry.narrow(Ensemble, **names, seed=None, members=members))
    return table


def average_table(config: Config, selected: set[str] | None = None) -> list[Average]:
    """All averages; if `selected` is given, only these."""
    table = []
    runs = {run.run_id: run for run in run_table(config)} if config.averages else {}
    for name, entry in sorted(config.averages.items()):
        if selected is None or name in selected:
            members = [runs[run_id] for run_id in members_of(config, name)]
            mixture = "+".join(sorted({run.mixture for run in members}))
            names = {"run_id": name, "name": name, "mixture": mixture, "model": members[0].model}
            ids = tuple(run.run_id for run in members)
            table.append(entry.narrow(Average, **names, seed=None, members=ids, first=members[0]))
    return table


def members_of(config: Config, name: str) -> list[str]:
    """The run ids of the members of an ensemble or an average; unknown names are left out."""
    return runs_named(config, config.members(name))


def choice_table(config: Config, selected: set[str] | None = None) -> list[RunChoice]:
    """All choices; if `selected` is given, those between some of these runs and sweeps."""
    table = {run.run_id: run for run in run_table(config)}
    result = []
    for entry in config.select:
        ids = runs_named(config, entry.among)
        if ids and (selected is None or any(selected & {table[one].name, table[one].sweep} for one in ids)):
            mixture = table[ids[0]].mixture
            result.append(RunChoice(name=entry.name, benchmark=entry.by, mixture=mixture, runs=tuple(ids)))
    return result


def scorers(config: Config, selected: set[str] | None = None) -> dict[str, list[Run]]:
    """What can score rows: a run id, the name of a run with one seed, an average or a choice; the runs that it may be.

    If `selected` is given, of these runs.
    """
    table = {run.run_id: run for run in run_table(config, selected)}
    choices = {choice.name: [table[one] for one in choice.runs] for choice in choice_table(config, selected)}
    single = {run.name: run for run in table.values() if run.run_id == run.name}
    averages = {average.run_id: average for average in average_table(config, selected)}
    return {name: [run] for name, run in {**table, **single, **averages}.items()} | choices


def scoring_table(config: Config, selected: set[str] | None = None) -> dict[str, ScoringJob]:
    """All scoring jobs, by name; if `selected` is given, those by these runs, or by choices between them."""
    known = scorers(config, selected)
    return {
        name: _job(name, entry.run, known[entry.run], entry.shards)
        for name, entry in sorted(config.scoring.items())
        if entry.run in known
    }


def labeling_table(config: Config, selected: set[str] | None = None) -> dict[str, LabelingJob]:
    """All choices of pairs to label, by name; if `selected` is given, those by models that are made of these runs."""
    known = scorers(config, selected)
    jobs = {}
    for name, entry in sorted(config.to_label.items()):
        names = choosing(config, entry.runs)
        if names and known.keys() >= set(names):
            members = tuple(_job(name, one, known[one], entry.shards) for one in names)
            mixtures = tuple(sorted({mixture for one in members for mixture in one.mixtures}))
            jobs[name] = LabelingJob(name=name, members=members, mixtures=mixtures)
    return jobs


def choosing(config: Config, names: Iterable[str]) -> list[str]:
    """The models that are meant by names of runs, ensembles, averages and choices; these each by one name."""
    found = [members_of(config, name) if name in config.ensembles else runs_named(config, [name]) for name in names]
    return list(dict.fromkeys(one for name, ids in zip(names, found, strict=True) for one in ids or [name]))


def _job(name: str, model: str, among: list[Run], shards: int) -> ScoringJob:
    mixtures = tuple(sorted({mixture for run in among for mixture in run.mixture.split("+")}))
    return ScoringJob(name=name, run=model, trained=among[0], mixtures=mixtures, shards=shards)


def runs_named(config: Config, names: Iterable[str]) -> list[str]:
    """Run ids; the name of a run means all its seeds, that of a sweep all its cells."""
    table = run_table(config)
    return list(
        dict.fromkeys(run.run_id for name in names for run in table if name in (run.name, run.run_id, run.sweep))
    )


def has_eval(config: Config, run: Run) -> bool:
    """Whether a run is evaluated on the eval split of its mixture, which all members of an ensemble must share."""
    return run.mixture in config.mixtures and config.mixtures[run.mixture].eval_fraction > 0


def evaluated_on(config: Config, run: Run) -> list[str]:
    """The benchmarks of a run, `eval` first if it has one."""
    return [HELD_OUT] * has_eval(config, run) + list(run.benchmarks)


def sources(config: Config) -> dict[str, DatasetEntry]:
    """All datasets and benchmarks that have a source, by name: all but probes."""
    return {**config.datasets, **{name: entry for name, entry in config.benchmarks.items() if entry.probes is None}}


def stored_sources(config: Config) -> dict[str, SourceSettings]:
    """All that is read, by name: the sources of datasets and benchmarks, and of what is scored."""
    return {**config.scoring, **config.to_label, **sources(config)}


def reserved_benchmarks(config: Config, name: str) -> list[str]:
    """The benchmarks, except probes, of all runs and averages, of whose prompts no pairs are made of what is scored.

    None if no pairs are made at all.
    """
    if name in config.scoring and config.scoring[name].pairs is None:
        return []
    judged = [*config.runs.values(), *config.averages.values()]
    names = {benchmark for one in judged for benchmark in one.benchmarks}
    return sorted(one for one in names if config.benchmarks[one].probes is None)


def joined_sources(config: Config, name: str) -> list[str]:
    """The datasets that ids in the rows of a dataset or benchmark refer to."""
    return sorted({join.dataset for join in sources(config)[name].join.values()})


def tokenizer_mixture(config: Config, model: str) -> str | None:
    """The mixture that a model's tokenizer is trained on; None for a model that comes with one."""
    init = config.models[model].init
    return None if init is None else init.tokenizer.mixture


def used_sources(config: Config, runs: Iterable[Run]) -> list[str]:
    """The datasets and benchmarks that runs read, directly or through the mixture of a tokenizer."""
    names: set[str] = set()
    for run in runs:
        for mixture in {config.source_of(run.mixture), tokenizer_mixture(config, run.model)} - {None}:
            names |= set(config.mixtures[str(mixture)].datasets) | set(benchmarks_of_mixture(config, str(mixture)))
    return sorted(names.union(*(joined_sources(config, name) for name in names)))


def benchmarks_of_mixture(config: Config, mixture: str) -> list[str]:
    """The benchmarks, except probes, of the runs on a mixture; their prompts must not be in its training pairs."""
    names = {
        name for run in config.runs.values() if config.source_of(run.mixture) == mixture for name in run.benchmarks
    }
    for average in average_table(config):
        trained_on = map(config.source_of, average.mixture.split("+"))
        names |= set(average.benchmarks) if mixture in trained_on else set()
    return sorted(name for name in names if config.benchmarks[name].probes is None)


def limits(config: Config, runs: Iterable[Run]) -> dict[str, dict[str, float]]:
    """The least accuracy that `fail_below` allows, by run id and benchmark."""
    entries = {run.run_id: config.all_runs[run.name] for run in runs}
    return {run_id: dict(entry.fail_below) for run_id, entry in entries.items() if entry.fail_below}
