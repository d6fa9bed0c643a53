"""Mistakes that no single key shows: undefined names, and keys that are not allowed together."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from rewardline.core.errors import nearest
from rewardline.core.files import read_json
from rewardline.core.settings import Settings
from rewardline.data.formats.settings import LABEL
from rewardline.data.sources.settings import SourceSettings
from rewardline.evaluation.settings import HELD_OUT
from rewardline.tokens.settings import stated_positions
from rewardline.training.deepspeed_options import find_problems
from rewardline.training.settings import OF_PAIRS, TrainingSettings
from rewardline.workflow.config import SECTIONS, Config, DatasetEntry, ModelEntry, RunEntry
from rewardline.workflow.members import check_members, without_accuracy
from rewardline.workflow.members import not_defined as _known
from rewardline.workflow.runs import (
    Run,
    average_table,
    choice_table,
    choosing,
    evaluated_on,
    halved_sweeps,
    run_table,
    runs_named,
    scorers,
)
from rewardline.workflow.sweeps import same_training

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
DATASET_SOURCES = ("hub", "files", "demo")
BENCHMARK_SOURCES = (*DATASET_SOURCES, "probes")
SCORED_SOURCES = ("hub", "files")
MODEL_SOURCES = ("path", "gguf", "init")


def cross_check(config: Config) -> Iterator[str]:
    """The mistakes of a configuration whose single keys are valid, each as a message."""
    sections: list[Mapping[str, Settings]]
    sections = [config.datasets, config.mixtures, config.models, config.all_runs, config.benchmarks, config.audits]
    for section, entries in zip(SECTIONS, sections, strict=True):
        for name in entries:
            cell = config.cells.get(name) if section == "runs" else None
            if not re.fullmatch(NAME, written := cell.sweep if cell else name):
                yield f"{section}.{written}: a name consists of letters, digits, '.', '_' and '-'"
    for name in config.benchmarks.keys() & {*config.datasets, *config.mixtures, HELD_OUT}:
        yield f"benchmarks.{name}: the name is taken; use one that no dataset or mixture has, and not `{HELD_OUT}`"
    for name, dataset in config.datasets.items():
        yield from _check_dataset(f"datasets.{name}", dataset, DATASET_SOURCES, config)
    for name, benchmark in config.benchmarks.items():
        yield from _check_dataset(f"benchmarks.{name}", benchmark, BENCHMARK_SOURCES, config)
    for name, mixture in config.mixtures.items():
        if name in config.folds:  # as the mixture that it is a part of
            continue
        for dataset_name in mixture.datasets:
            yield from _known(f"mixtures.{name}.datasets", dataset_name, config.datasets)
        if mixture.held_out >= 1 or (mixture.select_fraction and not mixture.eval_fraction):
            yield f"mixtures.{name}.select_fraction: needs an eval_fraction above 0, and a sum of both below 1"
        adds = [key for key in ("other_prompts", "hacks") if getattr(mixture, key)]
        if adds and mixture.augment is None:
            yield f"mixtures.{name}.{adds[0]}: has an effect with `augment` only, the name of a mixture to add pairs to"
        elif mixture.augment is not None and not adds:
            yield f"mixtures.{name}.augment: adds nothing; give `other_prompts` or `hacks` a share"
        elif mixture.augment is not None and (reason := config.unpaired(name)) is not None:
            yield f"mixtures.{name}.augment: {reason} to add others to; name another mixture"
        elif mixture.augment is not None and name in config.datasets:
            yield f"mixtures.{name}: a dataset has the name, which that of the new pairs would be; rename one"
    yield from _check_probes(config)
    for name, model in config.models.items():
        yield from _one_source(f"models.{name}", model, MODEL_SOURCES)
        if model.init is not None:
            yield from _known(f"models.{name}.init.tokenizer.mixture", model.init.tokenizer.mixture, config.mixtures)
    if not config.runs:
        yield "runs: there is nothing to run; name a run with its mixture and model"
    for name, entry in config.runs.items():
        if name in config.folds:  # with the settings of its run
            continue
        cell = config.cells.get(name)
        for problem in _check_run(f"runs.{cell.sweep if cell else name}", entry, config):
            swept = cell and problem.partition(":")[0].removeprefix(f"runs.{cell.sweep}.") in cell.values
            yield problem.replace(f"runs.{cell.sweep}", f"runs.{cell.sweep}.grid", 1) if cell and swept else problem
    for name, fold in config.folds.items():
        audit = config.audits[fold.audit]
        if fold.number == 0 and config.runs[audit.run].mixture != audit.mixture:
            for problem in islice(_check_objective(config.runs[name].training, audit.mixture, config), 1):
                yield f"audits.{fold.audit}.run: {audit.run} cannot be trained on {audit.mixture}: {problem}"
    yield from _check_cells(config)
    yield from _check_halving(config)
    names: dict[str, str] = {}
    for run in run_table(config):
        if (name := names.setdefault(run.run_id, run.name)) != run.name:
            yield f"runs.{run.name}: its run id {run.run_id} is also that of runs.{name}; rename one"
    yield from check_members(config)
    yield from _check_choices(config)
    yield from _check_scoring(config)
    yield from _check_to_label(config)
    if not isinstance(config.evaluation.shards, int):
        for name in config.evaluation.shards:
            yield from _known("evaluation.shards", name, [HELD_OUT, *config.benchmarks])


def check_start(config: Config, runs: Iterable[Run], gpus: int | None) -> list[str]:
    """What would stop a stage of `runs` later, and can be seen before any job; once, however many runs it concerns.

    `gpus`: how many this machine has; None where jobs run elsewhere, with packages of their own.
    """
    return list(dict.fromkeys(_start_problems(config, runs, gpus)))


def _start_problems(config: Config, runs: Iterable[Run], gpus: int | None) -> Iterator[str]:
    for name in sorted({run.name for run in runs}):
        fold = config.folds.get(name)
        own = name if fold is None else config.audits[fold.audit].run
        training, where = config.runs[name].training, f"runs.{own}.training"
        missing = [package for package in training.loggers.used() if find_spec(package) is None]
        if missing and gpus is not None:
            yield f"{where}.loggers: {', '.join(missing)} is not installed; run: pip install {' '.join(missing)}"
        if training.precision == "fp16" and gpus == 0:
            yield f"{where}.precision: fp16 needs a GPU, and there is none; expected fp32 or bf16"
        if training.attention in ("flex", "varlen") and gpus == 0:
            yield f"{where}.attention: {training.attention} needs a GPU, and there is none; expected auto or sdpa"
        model_name = config.runs[name].model
        model = config.models[model_name]
        positions = stated_positions(_model_config(model))
        if positions is not None and model.max_length > positions:
            yield (
                f"models.{model_name}.max_length: {model.max_length} is beyond the {positions} positions of the model; "
                f"expected {positions} or less"
            )


def _model_config(model: ModelEntry) -> Mapping[str, object]:
    """The configuration of a model as far as it is known before any job: of a new one, or in a local folder."""
    if model.init is not None:
        return model.init.config
    path = Path(model.path or "") / "config.json"
    config = read_json(path) if model.path and path.is_file() else {}
    return config if isinstance(config, dict) else {}


def _check_dataset(where: str, entry: DatasetEntry, known: Sequence[str], config: Config) -> Iterator[str]:
    yield from _one_source(where, entry, known)
    if entry.hub is not None and entry.revision is None:
        yield f"{where}: a hub dataset needs `revision`, the commit to read"
    for path, join in entry.join.items():
        yield from _known(f"{where}.join.{path}.dataset", join.dataset, config.datasets)
    if entry.ratings and entry.format not in ("auto", "rated"):
        yield f"{where}.ratings: are of single answers; set format: rated instead of {entry.format}, or remove them"
    elif entry.scale is not None and not entry.is_rated:
        yield f"{where}.scale: has an effect on ratings of single answers only; set format: rated, or remove it"
    if entry.share[0] >= entry.share[1]:
        yield f"{where}.share: {entry.share} is empty; expected [from, to] with from below to"


def _check_run(where: str, run: RunEntry, config: Config) -> Iterator[str]:
    yield from _known(f"{where}.mixture", run.mixture, config.mixtures)
    yield from _known(f"{where}.model", run.model, config.models)
    for benchmark in run.benchmarks:
        yield from _known(f"{where}.benchmarks", benchmark, config.benchmarks)
    has_split = run.mixture not in config.mixtures or config.mixtures[run.mixture].eval_fraction > 0
    for benchmark in run.fail_below:
        yield from _known(f"{where}.fail_below", benchmark, [HELD_OUT] * has_split + run.benchmarks)
        yield from without_accuracy(f"{where}.fail_below", config, benchmark, run.mixture)
    if not has_split and not run.benchmarks:
        yield f"{where}: there is nothing to evaluate it on; name a benchmark, or set the mixture's eval_fraction > 0"
    training = run.training
    for problem in find_problems(training):
        yield f"{where}.{problem}"
    if training.precision != "fp32" and training.zero_stage == 0:
        yield (
            f"{where}.training.zero_stage: 0 is not allowed with precision {training.precision}, where DeepSpeed's "
            "stage 0 takes a step on zero gradients; expected 1, 2 or 3"
        )
    if training.state_precision == "bf16" and (training.precision != "bf16" or training.offload != "none"):
        yield f"{where}.training.state_precision: bf16 needs precision bf16 and offload none"
    types = training.deepspeed.get("data_types")
    if training.zero_stage == 1 and training.precision == "bf16" and types:
        yield (
            f"{where}.training.deepspeed.data_types: {types} is not allowed with precision bf16 and zero_stage 1, "
            "where DeepSpeed takes a step on zero gradients; expected zero_stage 2 or 3"
        )
    if training.attention == "varlen" and training.precision == "fp32":
        yield f"{where}.training.attention: varlen needs precision bf16 or fp16; expected auto, flex or sdpa"
    if training.compile is True and training.plain_layers:
        yield f"{where}.training.compile: {training.plain_layers}; expected auto or false"
    if training.offload != "none" and training.zero_stage == 0:
        yield f"{where}.training.offload: {training.offload!r} needs zero_stage 1, 2 or 3"
    if training.offload == "all" and training.zero_stage != 3:
        yield f"{where}.training.offload: 'all' moves the parameters too and needs zero_stage 3"
    for name in training.eval_sets:
        yield from _known(f"{where}.training.eval_sets", name, [HELD_OUT, *run.benchmarks])
    if training.eval_sets and not training.eval_every:
        yield f"{where}.training.eval_sets: needs evaluations; set eval_every above 0"
    stopping = training.early_stopping
    chosen = {"keep_best": training.best_by, "early_stopping": stopping.eval_set if stopping else None}
    for key, chooser in chosen.items():
        if (
            chooser is not None
            and chooser in (HELD_OUT, *training.eval_sets)
            and not (training.eval_every > 0 and (has_split or chooser != HELD_OUT))
        ):
            yield f"{where}.training.{key}: needs evaluations; set eval_every and the mixture's eval_fraction above 0"
        if chooser is not None:
            yield from _known(f"{where}.training.{key}", chooser, [HELD_OUT, *training.eval_sets])
    for problem in _check_objective(training, run.mixture, config):
        yield f"{where}.training.objective: {problem}"
    yield from _check_pair_keys(f"{where}.training", run, config)
    if training.objective and training.objective.attributes and training.normalize == "fold":
        yield f"{where}.training.normalize: fold is for models with one output; with attributes, use true"
    if training.normalize and not has_split:
        yield f"{where}.training.normalize: needs an eval split; set the mixture's eval_fraction above 0"
    if training.warmup >= 1 and training.warmup != int(training.warmup):
        yield f"{where}.training.warmup: {training.warmup} is neither a share below 1 nor an integer number of steps"


def _check_objective(training: TrainingSettings, name: str, config: Config) -> Iterator[str]:
    """Single answers of the mixture `name` have an objective that trains on them, and it has their ratings."""
    objective = training.objective
    mixture = config.mixtures.get(config.source_of(name))
    if mixture is None or not mixture.datasets.keys() <= config.datasets.keys():
        return
    rated = [name for name in mixture.datasets if config.datasets[name].is_rated]
    if objective is None:
        if rated:
            yield (
                f"{rated[0]} in mixture {name} has single answers with ratings, which only an objective trains on; set"
                " it, as {type: binary}, or leave the dataset out of the mixture"
            )
        return
    if not rated:
        yield f"mixture {name} has no single answers with ratings; give a dataset `format: rated`"
    known = {name for one in rated for name in config.datasets[one].ratings or [LABEL]}
    for rating in objective.names if rated else ():
        if rating not in known:
            yield f"no dataset of mixture {name} has a rating {rating!r}{nearest(rating, known)}"
    if training.loss not in ("pairwise", "kwise"):
        yield f"needs loss pairwise or kwise, not {training.loss}"


def _check_pair_keys(where: str, run: RunEntry, config: Config) -> Iterator[str]:
    """Keys of `training` for pairs have an effect where pairs are trained on."""
    training = run.training
    written = [key for key in OF_PAIRS if getattr(training, key)]
    reason = config.unpaired(run.mixture)
    if reason is None and training.objective is not None and not training.objective.trains_pairs:
        reason = "the objective trains no pairs (pair_weight: 0 or weights: fit)"
    if written and reason is not None:
        yield f"{where}.{written[0]}: {reason} for it to have an effect on; remove it"


def _check_cells(config: Config) -> Iterator[str]:
    """Each cell of a sweep must train other weights."""
    known = {name for name, run in config.runs.items() if run.mixture in config.mixtures and run.model in config.models}
    for sweep in {cell.sweep for cell in config.cells.values()}:
        yield from same_training(
            config, sweep, [n for n in config.cells if config.cells[n].sweep == sweep and n in known]
        )


def _check_halving(config: Config) -> Iterator[str]:
    """Cells compete on one eval split, with the same fractions of its mixture, before their training ends."""
    for sweep, halved in halved_sweeps(config).items():
        where = f"runs.{sweep}.grid"
        runs = {
            name: run for name, run in config.runs.items() if name in config.cells and config.cells[name].sweep == sweep
        }
        if len(halved.cells) < halved.factor:
            yield (
                f"{where}.halving.factor: {halved.factor} is more than the number of cells ({len(halved.cells)}); lower"
                " it, or add values"
            )
        most = [run.training.max_steps for run in runs.values() if run.training.max_steps is not None]
        if most and halved.steps[0] >= min(most):
            yield (
                f"{where}.halving.min_steps: {halved.steps[0]:,} is not below the {min(most):,} steps of max_steps;"
                " lower it, or raise max_steps"
            )
        mixtures = sorted({run.mixture for run in runs.values()})
        if len(mixtures) > 1:
            yield (
                f"{where}.halving: the cells are on {' and '.join(mixtures)}, each with an eval split of its own; make"
                " a sweep for each mixture"
            )
        elif mixtures[0] in config.mixtures and not config.mixtures[mixtures[0]].eval_fraction:
            yield f"{where}.halving: needs an eval split to choose by; set the mixture's eval_fraction above 0"
        else:
            yield from without_accuracy(f"{where}.halving", config, HELD_OUT, mixtures[0])
        if len(set(map(len, halved.cells.values()))) > 1:
            yield f"{where}.halving: the cells of a sample have different fractions of the data; remove sample"


def _check_probes(config: Config) -> Iterator[str]:
    """Probes are built from pairs that a mixture holds out, and judge only runs on that mixture."""
    for name, entry in config.benchmarks.items():
        if entry.probes is None:
            continue
        where, mixture = f"benchmarks.{name}.probes", entry.probes.mixture
        yield from _known(f"{where}.mixture", mixture, config.mixtures)
        if mixture in config.mixtures and config.mixtures[mixture].eval_fraction == 0:
            yield f"{where}.mixture: {mixture!r} holds nothing out; set its eval_fraction above 0"
        if (reason := config.unpaired(mixture)) is not None:
            yield f"{where}.mixture: {reason} to make probes of; name another mixture"
        if entry.scoring is not None:
            yield f"benchmarks.{name}.scoring: {entry.scoring!r} is of a published benchmark, not of probes"
        for run_name, run in config.runs.items():
            if name in run.benchmarks and config.source_of(run.mixture) != mixture:
                yield (
                    f"runs.{run_name}.benchmarks: {name} is built from {mixture}, whose held-out prompts may be in the "
                    f"training pairs of the run's mixture {run.mixture}; name probes of {run.mixture}"
                )


def _check_choices(config: Config) -> Iterator[str]:
    """A choice is between training runs that are judged on the same data, and has a name of its own."""
    runs = {run.run_id: run for run in run_table(config)}
    sweeps = {cell.sweep for cell in config.cells.values()}
    taken = {*runs, *config.all_runs, *sweeps}
    for entry in config.select:
        where = f"select.{entry.name}"
        if not re.fullmatch(NAME, entry.name):
            yield f"{where}: a name consists of letters, digits, '.', '_' and '-'"
        if entry.name in taken:
            yield f"{where}.as: the name is taken; use one that no run and no other choice has"
        taken.add(entry.name)
        known = {*runs, *config.runs, *sweeps}
        for name in set(entry.among) - known:
            what = "no run, no sweep and no run id"
            if name in config.all_runs:  # and no training run
                what = "an average of runs" if name in config.averages else "an ensemble, which has no model"
            yield f"{where}.from: {name!r} is {what}{nearest(name, sorted(known))}"
        among = [runs[run_id] for run_id in runs_named(config, entry.among)]
        if set(entry.among) <= known and len(among) < 2:
            yield f"{where}.from: there is one run only, and nothing to choose; name several, or one with several seeds"
        mixtures = sorted({run.mixture for run in among})
        without = [run for run in among if entry.by not in evaluated_on(config, run)]
        if entry.by not in (HELD_OUT, *config.benchmarks):
            yield from _known(f"{where}.by", entry.by, [HELD_OUT, *config.benchmarks])
        elif without:
            remedy = f"add it to runs.{without[0].sweep or without[0].name}.benchmarks"
            if entry.by == HELD_OUT:
                remedy = "set its mixture's eval_fraction above 0"
            yield f"{where}.by: {without[0].name} is not evaluated on {entry.by!r}; {remedy}"
        elif entry.by == HELD_OUT and len(mixtures) > 1:
            yield (
                f"{where}.by: the runs are on {' and '.join(mixtures)}, each with an eval split of its own; name"
                " a benchmark that all runs are evaluated on"
            )
        elif mixtures:
            yield from without_accuracy(f"{where}.by", config, entry.by, mixtures[0])


def _check_scoring(config: Config) -> Iterator[str]:
    """What is scored has a name of its own and one source, and one model scores it."""
    runs = run_table(config)
    known = {run.run_id for run in (*runs, *average_table(config))} | {one.name for one in choice_table(config)}
    for name, entry in config.scoring.items():
        where = f"scoring.{name}"
        yield from _check_scored(where, name, entry, {*config.datasets, *config.benchmarks}, "dataset and no benchmark")
        seeds = [run.run_id for run in runs if run.name == entry.run]
        if entry.run in config.ensembles:
            yield f"{where}.run: {entry.run!r} is an ensemble, which has no model; name one of its members"
        elif len(seeds) > 1:
            yield f"{where}.run: {entry.run!r} has several seeds; name one of {', '.join(seeds)}, or a choice"
        elif cells := [run.run_id for run in runs if run.sweep == entry.run]:
            yield f"{where}.run: {entry.run!r} has several cells; name one of {', '.join(cells)}, or a choice"
        elif not seeds:
            yield from _known(f"{where}.run", entry.run, sorted(known))


def _check_to_label(config: Config) -> Iterator[str]:
    """What is to be labeled has a name of its own and one source, and models choose it that know what they do not."""
    known = scorers(config)
    names = {*known, *config.runs, *config.ensembles, *(cell.sweep for cell in config.cells.values())}
    halved = {run for sweep in halved_sweeps(config).values() for run in sweep.runs}
    for name, entry in config.to_label.items():
        where = f"to_label.{name}"
        taken = {*config.datasets, *config.benchmarks, *config.scoring}
        yield from _check_scored(where, name, entry, taken, "dataset, benchmark or entry of `scoring`")
        if unknown := [one for one in entry.runs if one not in names]:
            yield from _known(f"{where}.runs", unknown[0], sorted(names))
            continue
        models = choosing(config, entry.runs)
        if ended := sorted(halved & set(models)):
            yield f"{where}.runs: halving may end the training of {ended[0]}; name other runs, or a choice of `select`"
        if entry.by == "disagreement" and len(models) == 1:
            yield (
                f"{where}.by: disagreement needs two or more models, and runs has {models[0]} only; name more, give it"
                " more seeds, or set by: uncertainty"
            )


def _check_scored(where: str, name: str, entry: SourceSettings, taken: set[str], kinds: str) -> Iterator[str]:
    """Rows that models score have a name of their own and one source; `kinds`: what has the names `taken`, in words."""
    if not re.fullmatch(NAME, name):
        yield f"{where}: a name consists of letters, digits, '.', '_' and '-'"
    if name in taken:
        yield f"{where}: the name is taken; use one that no {kinds} has"
    yield from _one_source(where, entry, SCORED_SOURCES)
    if entry.hub is not None and entry.revision is None:
        yield f"{where}: a hub dataset needs `revision`, the commit to read"


def _one_source(where: str, entry: Settings, known: Sequence[str]) -> Iterator[str]:
    keys = [key for key in known if getattr(entry, key) is not None]
    if len(keys) != 1:
        yield f"{where}: has {' and '.join(keys) or 'no source'}; expected exactly one of {', '.join(known)}"
