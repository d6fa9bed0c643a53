# The inputs of each rule, and the numbers of its jobs and threads.
from functools import cache
from types import SimpleNamespace

DEMO_DATASETS = [name for name, entry in runs.sources(CONFIG).items() if entry.demo is not None]
ALL_RUNS = [*SHOWN.values(), *ENSEMBLES.values()]
LIMITS = runs.limits(CONFIG, ALL_RUNS)


# Called for each job of a dataset.
@cache
def dataset_parts(dataset):
    """The files of a dataset by the name of their part; none for one of the hub."""
    return stage_settings.file_parts(FILES.get(dataset, []))


def source_file(dataset, part):
    """The file that a part is read from: a local one, or the manifest of its copy."""
    file = dataset_parts(dataset)[part]
    return f"results/remote/{dataset}/{part}/manifest.json" if is_remote(file) else outside(file)


def fetched_manifests(dataset):
    """The manifests of the copies of a dataset's files from elsewhere."""
    return [source_file(dataset, part) for part, file in dataset_parts(dataset).items() if is_remote(file)]


def fetched_settings(dataset, address):
    """What the copy of a file from elsewhere depends on."""
    return stage_settings.fetch_settings(CONFIG, dataset, address, VERSIONS[dataset][address])


@cache
def candidate_parts(dataset):
    """The parts in which a dataset is converted, each with its number and how many there are."""
    return stage_settings.convert_parts(CONFIG, dataset, FILES.get(dataset, []))


def data_manifests(names):
    """The manifests of datasets."""
    return [f"results/data/{name}/manifest.json" for name in names]


def part_manifests(dataset):
    """The manifests of the files of a dataset, as read."""
    return [f"results/shards/data/{dataset}/{part}/manifest.json" for part in dataset_parts(dataset)]


def candidate_manifests(names):
    """The manifests of the candidates of datasets."""
    return [
        f"results/shards/candidates/{name}/{part}/manifest.json" for name in names for part in candidate_parts(name)
    ]


def converted_data(wildcards):
    """The rows from which a part of the candidates is converted: a file, or rows of the whole dataset."""
    if wildcards.part in dataset_parts(wildcards.dataset):
        return f"results/shards/data/{wildcards.dataset}/{wildcards.part}/manifest.json"
    return f"results/data/{wildcards.dataset}/manifest.json"


def labelled_dataset(wildcards):
    """All rows of a dataset of several files, where its first rows have to say what numbers as labels mean."""
    if len(dataset_parts(wildcards.dataset)) < 2 or stage_settings.labels_are_stated(CONFIG, wildcards.dataset):
        return []
    return data_manifests([wildcards.dataset])


def join_index(wildcards):
    """The index of the rows that a dataset joins, if it joins any."""
    joins = runs.joined_sources(CONFIG, wildcards.dataset)
    return [f"results/shards/joins/{wildcards.dataset}/manifest.json"] if joins else []


def mixture_datasets(mixture):
    """The datasets of a mixture; a benchmark consists of itself."""
    return sorted(stage_settings.mixture(CONFIG, mixture).datasets)


def mixture_candidates(wildcards):
    """The candidates of a mixture, and of the benchmarks whose prompts must not be in its training pairs."""
    return {
        "data": candidate_manifests(mixture_datasets(wildcards.mixture)),
        "benchmarks": candidate_manifests(runs.benchmarks_of_mixture(CONFIG, wildcards.mixture)),
    }


def pair_shards(wildcards):
    """The shards of the pairs of a mixture."""
    count = stage_settings.mixture(CONFIG, wildcards.mixture).shards
    return [f"results/shards/pairs/{wildcards.mixture}/{shard}/manifest.json" for shard in range(count)]


def token_shards(wildcards):
    """The shards of the tokens of a mixture for a model."""
    count = stage_settings.mixture(CONFIG, wildcards.mixture).shards
    folder = f"results/shards/tokens/{wildcards.mixture}/{wildcards.model}"
    return [f"{folder}/{shard}/manifest.json" for shard in range(count)]


def shard_threads(wildcards):
    """The cores divided by the number of shards, which are tokenized in parallel."""
    return max(1, all_cores() // stage_settings.mixture(CONFIG, wildcards.mixture).shards)


def base_inputs(wildcards):
    """The local files of a base model, or the mixture that its tokenizer is trained on."""
    mixture = runs.tokenizer_mixture(CONFIG, wildcards.model)
    return (
        list(map(outside, MODEL_FILES.get(wildcards.model, [])))
        if mixture is None
        else [f"results/pairs/{mixture}/stats.json"]
    )


def tokenizer_pairs(wildcards):
    """The option with the pairs that the tokenizer of a base model is trained on."""
    mixture = runs.tokenizer_mixture(CONFIG, wildcards.model)
    return [] if mixture is None else ["--pairs", placed(f"results/pairs/{mixture}/train")]


def rung_files(sweep, count=None):
    """The files of the first rungs of a sweep, or of all of them; none of one without halving."""
    steps = HALVED[sweep].steps[:count] if sweep in HALVED else []
    return [f"results/rungs/{sweep}/{number}.json" for number in range(len(steps))]


def last_result(run, sweep, count=None):
    """The result of a run after the last of these rungs, from which it continues."""
    return [f"{Path(path).with_suffix('')}/{run}.json" for path in rung_files(sweep, count)[-1:]]


def last_step(run, sweep, count=None):
    """The step at which one of these rungs stops a run, as far as they are known; empty if none does."""
    return halving.last_step(run, [Path(placed(path)) for path in rung_files(sweep, count)])


def rung_results(wildcards):
    """The results of all runs of a sweep after a rung."""
    return [f"results/rungs/{wildcards.sweep}/{wildcards.rung}/{run}.json" for run in HALVED[wildcards.sweep].runs]


def used_rungs():
    """The files of the rungs of all sweeps whose cells are run."""
    return [
        path for sweep in sorted({run.sweep for run in RUNS.values()} & HALVED.keys()) for path in rung_files(sweep)
    ]


def eval_tokens(wildcards):
    """The tokens of the benchmarks that a run is evaluated on while it trains."""
    run = RUNS[wildcards.run]
    names = stage_settings.eval_sets(CONFIG, run)
    return [f"results/tokens/{name}/{run.model}/manifest.json" for name in names]


def eval_token_options(wildcards, input):
    """The name and folder of these tokens."""
    names = stage_settings.eval_sets(CONFIG, RUNS[wildcards.run])
    return [f"{name}={Path(path).parent}" for name, path in zip(names, input.eval_tokens)]


def evaluated_on(wildcards):
    """The mixture or benchmark that a model is evaluated on."""
    return MODELS[wildcards.run].mixture if wildcards.benchmark == HELD_OUT else wildcards.benchmark


def score_shares(wildcards):
    """The shares in which the pairs of an evaluation are scored by several jobs; none where it scores them itself."""
    count = CONFIG.evaluation.shards_of(wildcards.benchmark)
    folder = f"results/shards/scores/{wildcards.run}/{wildcards.benchmark}"
    return [f"{folder}/{shard}.json" for shard in range(count)] if count > 1 else []


def evaluations(name, of=ALL_RUNS):
    """A file of every evaluation of runs and ensembles."""
    return [
        f"results/evals/{run.run_id}/{benchmark}/{name}" for run in of for benchmark in runs.evaluated_on(CONFIG, run)
    ]


def member_evaluations(name):
    """An input function: a file of the same evaluation of each member of an ensemble."""
    return lambda wildcards: [
        f"results/evals/{run}/{wildcards.benchmark}/{name}" for run in ENSEMBLES[wildcards.ensemble].members
    ]


def first_evaluation(ensemble, name):
    """A file of the evaluation of an ensemble by which the scores of its members are standardized everywhere."""
    return f"results/evals/{ensemble}/{runs.evaluated_on(CONFIG, ENSEMBLES[ensemble])[0]}/{name}"


def other_first_evaluation(wildcards):
    """The metrics of an ensemble's first benchmark, for all others."""
    first = first_evaluation(wildcards.ensemble, "metrics.json")
    return [] if Path(first).parent.name == wildcards.benchmark else [first]


def member_models(name, made=ENSEMBLES):
    """An input function: a file of the model of each member of an ensemble or an average."""
    return lambda wildcards: [f"results/models/{run}/{name}" for run in made[wildcards[0]].members]


def normalized_on(wildcards):
    """The tokens by which the scores of an average are normalized, if those of its members are."""
    average = AVERAGES[wildcards.average]
    normalize = CONFIG.runs[average.first.name].training.normalize and average.mixture in CONFIG.mixtures
    return [f"results/tokens/{average.mixture}/{average.model}/manifest.json"] if normalize else []


def made_models():
    """The files of the averages and ensembles that make them complete."""
    return [
        *(f"results/models/{average}/run.json" for average in AVERAGES),
        *(f"results/models/{ensemble}/ensemble.json" for ensemble in ENSEMBLES),
    ]


def compared_evaluations(name):
    """An input function: a file of the evaluation of each run that a choice is between."""
    return lambda wildcards: [
        f"results/evals/{run}/{CHOICES[wildcards.choice].benchmark}/{name}" for run in CHOICES[wildcards.choice].runs
    ]


def fold_scores(wildcards):
    """The scores of the folds of an audit, in their order."""
    folds = [name for name, fold in CONFIG.folds.items() if fold.audit == wildcards.audit]
    return [f"results/evals/{name}/{HELD_OUT}/scores.parquet" for name in folds]


def audits(name="audit.json"):
    """A file of every audit."""
    return [f"results/audits/{audit}/{name}" for audit in AUDITS]


def selections(name="selection.json"):
    """A file of the chosen model of every choice."""
    return [f"results/models/{choice}/{name}" for choice in CHOICES]


def shards_scored(place, entry):
    """The shards of the scores at a place, of the rows of an entry of the configuration."""
    return [f"results/shards/scored/{place}/{shard}/manifest.json" for shard in range(entry.shards)]


def scored_shards(wildcards):
    """The shards of the scores of a scoring job."""
    return shards_scored(wildcards.scoring, CONFIG.scoring[wildcards.scoring])


def member_shards(wildcards):
    """The shards of the scores of pairs to choose from: those of each model in order."""
    places = [f"{wildcards.pool}/{member.run}" for member in LABELING[wildcards.pool].members]
    return [path for place in places for path in shards_scored(place, CONFIG.to_label[wildcards.pool])]


def reserved_prompts(wildcards):
    """The candidates of benchmarks, and the held-out pairs, of whose prompts no pairs for training are made."""
    name = wildcards[0]
    if name in SCORING and CONFIG.scoring[name].pairs is None:
        return {}
    return {
        "benchmarks": candidate_manifests(runs.reserved_benchmarks(CONFIG, name)),
        "held_out": [f"results/pairs/{mixture}/stats.json" for mixture in {**SCORING, **LABELING}[name].mixtures],
    }


def scored():
    """The manifests of all scoring jobs, and of all choices of pairs to label."""
    return [
        *(f"results/scores/{name}/manifest.json" for name in SCORING),
        *(f"results/to_label/{name}/manifest.json" for name in LABELING),
    ]


def gated_metrics():
    """The metrics that are compared with `fail_below`."""
    return [f"results/evals/{run}/{name}/metrics.json" for run, limits in LIMITS.items() for name in limits]


def tracked_runs():
    """The records of the benchmarks of every run with a logger."""
    logged = {name for name, entry in CONFIG.runs.items() if entry.training.loggers.used()}
    return [f"results/tracked/{run.run_id}.json" for run in RUNS.values() if run.name in logged]


def evaluation_cards():
    """The card of every run with an evaluation."""
    return [f"results/models/{run.run_id}/EVALUATION.md" for run in SHOWN.values() if runs.evaluated_on(CONFIG, run)]


def pair_statistics():
    """The statistics of all mixtures and benchmarks: the summary counts what was left out of them."""
    benchmarks = sorted({benchmark for run in MODELS.values() for benchmark in run.benchmarks})
    return [
        *of_runs("results/pairs/{mixture}/stats.json"),
        *(f"results/pairs/{name}/stats.json" for name in benchmarks),
    ]


def evaluated_pairs():
    """The folders of the pairs that runs are evaluated on; their statistics are inputs in their place."""
    return [placed(path.replace("stats.json", "eval")) for path in pair_statistics()]


def token_manifests():
    """The manifests of the tokens of all mixtures and benchmarks."""
    benchmarks = sorted({(name, run.model) for run in MODELS.values() for name in run.benchmarks})
    paths = [f"results/tokens/{name}/{model}/manifest.json" for name, model in benchmarks]
    return [*of_runs("results/tokens/{mixture}/{model}/manifest.json"), *paths]


def base_manifests():
    """The manifests of the base models of all runs."""
    return of_runs("results/base/{model}/manifest.json")


def of_runs(pattern):
    """`pattern` filled in for every run, without repetitions."""
    shown = [run for run in RUNS.values() if run.run_id in SHOWN]
    paths = [pattern.format(run=run.run_id, mixture=run.mixture, model=run.model) for run in shown]
    return list(dict.fromkeys(paths))


def artifacts():
    """The files that all stages write, from the first on.

    Snakemake regards a missing file as no longer needed as long as the files made from it exist. Since these are
    requested, a file that a failed or killed job removed is made again, with all that depends on it.
    """
    table = list(RUNS.values())
    benchmarks = {name for run in MODELS.values() for name in run.benchmarks}
    tokenizers = {runs.tokenizer_mixture(CONFIG, run.model) for run in table}
    mixtures = {run.mixture for run in table} | tokenizers - {None}
    mixtures = sorted(mixtures | benchmarks | set(map(CONFIG.source_of, mixtures)))
    tokens = {(run.mixture, run.model) for run in table}
    tokens = sorted(tokens | {(name, run.model) for run in MODELS.values() for name in run.benchmarks})
    paths = [f"results/base/{run.model}/manifest.json" for run in table]
    paths += used_rungs()
    for run in table:
        paths += [f"{Path(rung).with_suffix('')}/{run.run_id}.json" for rung in rung_files(run.sweep)]
    for name in [*read_sources(), *SCORING, *LABELING]:
        paths += [*data_manifests([name]), *part_manifests(name), *fetched_manifests(name)]
    for name in SCORING:
        paths += [*scored_shards(SimpleNamespace(scoring=name)), *reserved_prompts([name]).get("benchmarks", [])]
    for name in LABELING:
        paths += [*member_shards(SimpleNamespace(pool=name)), *reserved_prompts([name])["benchmarks"]]
    for name in mixtures:
        paths += [f"results/pairs/{name}/stats.json", *pair_shards(SimpleNamespace(mixture=name))]
        if name not in PROBES and CONFIG.source_of(name) == name:
            candidates = mixture_candidates(SimpleNamespace(mixture=name))
            paths += [f"results/shards/prompts/{name}/manifest.json", *candidates["data"], *candidates["benchmarks"]]
    for name, model in tokens:
        paths.append(f"results/tokens/{name}/{model}/manifest.json")
        paths += token_shards(SimpleNamespace(mixture=name, model=model))
    for run in MODELS.values():
        for benchmark in runs.evaluated_on(CONFIG, run):
            paths += score_shares(SimpleNamespace(run=run.run_id, benchmark=benchmark))
    return list(dict.fromkeys(paths))


def all_cores():
    """The cores of this invocation; 1 if it has no limit, as on a cluster or for a picture of the rules."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


def scoring_threads(wildcards):
    """The cores to reserve for a scoring job, as for the training of the model."""
    return stage_settings.threads(CONFIG, SCORED[wildcards.scored].trained)


def train_threads(wildcards):
    """The cores to reserve for a run's training or evaluation. Its settings alone say how many threads compute."""
    return stage_settings.threads(CONFIG, MODELS[wildcards.get("run") or wildcards.average])
