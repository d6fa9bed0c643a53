# What each rule reads, and in how many jobs and threads.
from functools import cache
from types import SimpleNamespace


# Each of a dataset's jobs asks for its parts.
@cache
def dataset_parts(dataset):
    """The local files of a dataset by the name of their part; none for one from elsewhere."""
    return stage_settings.file_parts(FILES.get(dataset, []))


@cache
def candidate_parts(dataset):
    """The parts of a dataset that are converted apart, each with its number and how many there are."""
    return stage_settings.convert_parts(CONFIG, dataset, FILES.get(dataset, []))


def file_settings(cfg, dataset, part):
    """The settings of reading one file."""
    return stage_settings.download_file_settings(cfg, dataset, dataset_parts(dataset)[part])


def demo_datasets():
    """The datasets that are generated."""
    return [name for name, entry in runs.sources(CONFIG).items() if entry.demo is not None]


def downloaded_datasets():
    """The datasets that are read from files or the hub."""
    return sorted(set(runs.sources(CONFIG)) - set(demo_datasets()))


def download_settings(cfg, dataset):
    """The settings of a download."""
    return stage_settings.download_settings(cfg, dataset, FILES.get(dataset, []))


def base_settings(cfg, model):
    """The settings of a base model."""
    return stage_settings.base_settings(cfg, model, MODEL_FILES.get(model, []))


def part_manifests(stage, dataset):
    """The manifests of all parts of a dataset, of reading (`data`) or of conversion (`candidates`)."""
    found = dataset_parts(dataset) if stage == "data" else candidate_parts(dataset)
    return [f"results/shards/{stage}/{dataset}/{part}/manifest.json" for part in found]


def converted_data(wildcards):
    """The rows that a part of the candidates is made of: a file, or rows of the whole dataset."""
    if wildcards.part in dataset_parts(wildcards.dataset):
        return f"results/shards/data/{wildcards.dataset}/{wildcards.part}/manifest.json"
    return f"results/data/{wildcards.dataset}/manifest.json"


def joined_datasets(wildcards):
    """The datasets that ids in the rows of a dataset refer to."""
    names = runs.joined_sources(CONFIG, wildcards.dataset)
    return [f"results/data/{name}/manifest.json" for name in names]


def join_index(wildcards):
    """The index of the rows that a dataset joins, if it joins any."""
    joins = runs.joined_sources(CONFIG, wildcards.dataset)
    return [f"results/shards/joins/{wildcards.dataset}/manifest.json"] if joins else []


def convert_settings(cfg, dataset, part):
    """The settings of converting a part of a dataset."""
    return stage_settings.convert_settings(cfg, dataset, candidate_parts(dataset)[part])


def clean_settings(cfg, mixture, shard):
    """The settings of cleaning a shard."""
    return stage_settings.clean_settings(cfg, mixture, int(shard))


def of_data():
    """The mixtures and benchmarks whose pairs are made of data, which is all but probes."""
    return one_of([*CONFIG.mixtures, *(name for name in CONFIG.benchmarks if name in runs.sources(CONFIG))])


def mixture_datasets(mixture):
    """The datasets of a mixture; a benchmark is one by itself."""
    return sorted(stage_settings.mixture_datasets(CONFIG, mixture))


def mixture_candidates(wildcards):
    """The candidates of a mixture, and of the benchmarks whose prompts must not be in its training pairs."""
    benchmarks = runs.benchmarks_of_mixture(CONFIG, wildcards.mixture)
    return {
        key: [path for name in names for path in part_manifests("candidates", name)]
        for key, names in (("data", mixture_datasets(wildcards.mixture)), ("benchmarks", benchmarks))
    }


def mixture_data(wildcards):
    """The datasets of a mixture, as downloaded."""
    return [f"results/data/{name}/manifest.json" for name in mixture_datasets(wildcards.mixture)]


def pair_shards(wildcards):
    """The shards of a mixture's pairs."""
    count = stage_settings.mixture_shards(CONFIG, wildcards.mixture)
    return [f"results/shards/pairs/{wildcards.mixture}/{shard}/manifest.json" for shard in range(count)]


def token_shards(wildcards):
    """The shards of a mixture's tokens for a model."""
    count = stage_settings.mixture_shards(CONFIG, wildcards.mixture)
    folder = f"results/shards/tokens/{wildcards.mixture}/{wildcards.model}"
    return [f"{folder}/{shard}/manifest.json" for shard in range(count)]


def shard_threads(wildcards):
    """Shards that are tokenised side by side share the cores."""
    return max(1, all_cores() // stage_settings.mixture_shards(CONFIG, wildcards.mixture))


def base_inputs(wildcards):
    """What a base model is made of: local files, or the mixture that its tokenizer is trained on."""
    mixture = runs.tokenizer_mixture(CONFIG, wildcards.model)
    if mixture is not None:
        return [f"results/pairs/{mixture}/stats.json"]
    return MODEL_FILES.get(wildcards.model, [])


def tokenizer_pairs(wildcards):
    """The option that names the pairs that a base model's own tokenizer is trained on."""
    mixture = runs.tokenizer_mixture(CONFIG, wildcards.model)
    return [] if mixture is None else ["--pairs", f"results/pairs/{mixture}/train"]


def run_tokens(wildcards):
    """The tokens that a run trains on."""
    run = RUNS[wildcards.run]
    return f"results/tokens/{run.mixture}/{run.model}/manifest.json"


def run_base(wildcards):
    """The base model of a run."""
    return f"results/base/{RUNS[wildcards.run].model}/manifest.json"


def judged_on(wildcards):
    """The mixture or benchmark that a run is evaluated on."""
    return RUNS[wildcards.run].mixture if wildcards.benchmark == HELD_OUT else wildcards.benchmark


def benchmark_tokens(wildcards):
    """The tokens that a run is evaluated on."""
    return f"results/tokens/{judged_on(wildcards)}/{RUNS[wildcards.run].model}/manifest.json"


def benchmark_pair_statistics(wildcards):
    """The pairs that these tokens were made of."""
    return f"results/pairs/{judged_on(wildcards)}/stats.json"


def gated():
    """What is asked for in `fail_below`, and the metrics that show whether it holds."""
    limits = runs.limits(CONFIG, [*RUNS.values(), *ENSEMBLES.values()])
    return limits, [f"results/evals/{run}/{name}/metrics.json" for run, own in limits.items() for name in own]


def evaluations(name, of=None):
    """A file of every evaluation of every run and ensemble, or of these runs."""
    paths = []
    for run in [*RUNS.values(), *ENSEMBLES.values()] if of is None else of:
        for benchmark in runs.judged_on(CONFIG, run):
            paths.append(f"results/evals/{run.run_id}/{benchmark}/{name}")
    return paths


def member_evaluations(name):
    """An input function: a file of the same evaluation of each member of an ensemble."""

    def paths(wildcards):
        members = ENSEMBLES[wildcards.ensemble].members
        return [f"results/evals/{run}/{wildcards.benchmark}/{name}" for run in members]

    return paths


def ensemble_settings(wildcards):
    """The settings of evaluating an ensemble."""
    return stage_settings.ensemble_settings(CONFIG, ENSEMBLES[wildcards.ensemble], wildcards.benchmark).canonical_json()


def run_evaluations(wildcards):
    """The metrics of all evaluations of a run."""
    return evaluations("metrics.json", [RUNS[wildcards.run]])


def evaluation_cards():
    """The card of every run that was evaluated on anything."""
    return [f"results/models/{run.run_id}/EVALUATION.md" for run in RUNS.values() if evaluations("", [run])]


def benchmark_pairs():
    """The statistics of all benchmarks: what was left out of them must not go unseen."""
    names = sorted({benchmark for run in RUNS.values() for benchmark in run.benchmarks})
    return [f"results/pairs/{name}/stats.json" for name in names]


def judged_pairs():
    """The folders of the pairs that runs are judged on; their statistics are inputs in their place."""
    return [
        path.replace("stats.json", "eval") for path in of_runs("results/pairs/{mixture}/stats.json") + benchmark_pairs()
    ]


def benchmark_manifests():
    """The manifests of the tokens of all benchmarks."""
    found = {(name, run.model) for run in RUNS.values() for name in run.benchmarks}
    return [f"results/tokens/{name}/{model}/manifest.json" for name, model in sorted(found)]


def of_runs(pattern):
    """`pattern` filled in for every run, without repetitions."""
    paths = [pattern.format(run=run.run_id, mixture=run.mixture, model=run.model) for run in RUNS.values()]
    return list(dict.fromkeys(paths))


def artefacts():
    """What every stage leaves behind, from the first on.

    A file that a failed or killed job took away counts as no longer needed as long as the files made of it are there.
    Asked for by name, it is made again, and so is all that follows from it.
    """
    table = list(RUNS.values())
    benchmarks = {name for run in table for name in run.benchmarks}
    tokenizers = {runs.tokenizer_mixture(CONFIG, run.model) for run in table}
    mixtures = sorted({run.mixture for run in table} | benchmarks | tokenizers - {None})
    tokens = sorted({(name, run.model) for run in table for name in (run.mixture, *run.benchmarks)})
    paths = [f"results/base/{run.model}/manifest.json" for run in table]
    for name in runs.used_sources(CONFIG, table):
        paths += [f"results/data/{name}/manifest.json", *part_manifests("data", name)]
    for name in mixtures:
        paths += [f"results/pairs/{name}/stats.json", *pair_shards(SimpleNamespace(mixture=name))]
        if name not in runs.probe_benchmarks(CONFIG):
            candidates = mixture_candidates(SimpleNamespace(mixture=name))
            paths += [f"results/shards/prompts/{name}/manifest.json", *candidates["data"], *candidates["benchmarks"]]
    for name, model in tokens:
        paths.append(f"results/tokens/{name}/{model}/manifest.json")
        paths += token_shards(SimpleNamespace(mixture=name, model=model))
    return list(dict.fromkeys(paths))


def all_cores():
    """The cores of this invocation, 1 where it was given none: a picture of the rules, or a cluster."""
    try:
        return workflow.cores
    except WorkflowError:
        return 1


def train_threads():
    """Trainings share the cores when several can run side by side."""
    return max(1, all_cores() // max(1, len(RUNS)))
