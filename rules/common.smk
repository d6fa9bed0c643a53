import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(str(workflow.current_basedir)).parent
SCRIPTS = (Path(".") if ROOT.resolve() == Path.cwd().resolve() else ROOT) / "scripts"
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline import config as configuration
from rewardline import machine, slurm, stages, summary
from rewardline.artifacts import canonical
from rewardline.code import program_files
from rewardline.expand import expand_files, local_model_files
from rewardline.cli import UserError
from rewardline.formats import OPTIONS, check
from rewardline.formats_join import check_joins

machine.use_own_python()


def selected_runs():
    """Names of the runs in the --configfile files, or None: then all runs of the configuration are meant."""
    names = set()
    for path in workflow.overwrite_configfiles:
        names |= set((yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("runs") or {})
    return names or None


def load_config():
    schema = configuration.load_schema(ROOT / "config" / "schema.yaml")
    try:
        return configuration.resolve(config, schema, configuration.load_known(ROOT / "config" / "datasets.yaml"))
    except configuration.ConfigError as error:
        raise WorkflowError(f"The configuration has mistakes.\n{error}") from None


def find_files():
    """The local files of every data set that the runs use, by its name."""
    files, problems = {}, []
    for name in stages.used_sources(CONFIG, RUNS.values()):
        section = "datasets" if name in CONFIG["datasets"] else "benchmarks"
        try:
            files[name] = expand_files(CONFIG[section][name].get("files", []))
        except UserError as error:
            problems.append(f"{section}.{name}.files: {error}")
    problems += check_shapes(files) + check_models()
    if problems:
        raise WorkflowError("\n".join(["The configuration has mistakes.", *problems]))
    return files


def check_shapes(names):
    """What is wrong with the formats and fields of these data sets."""
    problems = []
    for name in names:
        section = "datasets" if name in CONFIG["datasets"] else "benchmarks"
        shape = CONFIG[section][name]
        options = {key: shape[key] for key in OPTIONS}
        try:
            check(shape["format"], shape["fields"], **options)
            check_joins(shape["join"])
        except UserError as error:
            problems.append(f"{section}.{name}: {error}")
    return problems


def check_models():
    """Local models of the runs that are not there."""
    problems = []
    for name in sorted({run.model for run in RUNS.values()}):
        try:
            local_model_files(CONFIG["models"][name])
        except UserError as error:
            problems.append(f"models.{name}: {error}")
    return problems


def base_settings(cfg, name):
    """The settings of a base model; for local files also their sizes, which catch a change with an older date."""
    result = stages.base_settings(cfg, name)
    files = local_model_files(CONFIG["models"][name])
    return {**result, "sizes": [Path(path).stat().st_size for path in files]} if files else result


CONFIG = load_config()
RUNS = {run.run_id: run for run in stages.run_table(CONFIG, selected_runs())}
ENSEMBLES = {one.run_id: one for one in stages.ensemble_table(CONFIG, selected_runs())}
FILES = find_files()


def one_of(names):
    """A wildcard constraint that matches exactly these names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(stages.sources(CONFIG)),
    mixture=one_of([*CONFIG["mixtures"], *CONFIG["benchmarks"]]),
    probes=one_of(stages.probe_benchmarks(CONFIG)),
    model=one_of(CONFIG["models"]),
    part=r"[A-Za-z0-9_.-]+",
    shard=r"\d+",
    run=one_of(RUNS),
    ensemble=one_of(ENSEMBLES),
    benchmark=one_of([*CONFIG["benchmarks"], stages.EVAL]),


def code(program):
    """A stage's program with all project modules it imports: an edit of any of them reruns the stage."""
    return [str(path) for path in program_files(SCRIPTS / program)]


def program(name):
    """The command that runs a stage's program."""
    return f"python {shlex.quote(str(SCRIPTS / name))}"


def settings(function, *keys):
    """A params function: the canonical JSON of what `function` reads of the configuration for these wildcards.

    A stage gets its settings from nowhere else, so that it reruns exactly when one of them changes.
    """

    def params(wildcards):
        return canonical(function(CONFIG, *(getattr(wildcards, key) for key in keys)))

    return params


def run_settings(function, *keys):
    """As `settings`, for the stages that a run goes through by itself."""

    def params(wildcards):
        return canonical(function(CONFIG, RUNS[wildcards.run], *(getattr(wildcards, key) for key in keys)))

    return params


def file_settings(cfg, dataset, part):
    """The settings of reading one file; its size catches an edit with an older date."""
    path = dataset_parts(dataset)[part]
    read = {key: value for key, value in stages.download_settings(cfg, dataset).items() if key == "columns"}
    return {**read, "files": [path], "sizes": [Path(path).stat().st_size]}


def download_settings(cfg, dataset):
    """The settings of a download; for local files, which files these are."""
    result = stages.download_settings(cfg, dataset)
    return {**result, "files": FILES[dataset]} if FILES.get(dataset) else result


def dataset_parts(dataset):
    """The local files of a data set by the name of their part; none for one from elsewhere."""
    return stages.file_parts(FILES.get(dataset, []))


def part_manifests(stage, dataset):
    """The manifests of all parts of a data set, of reading (`data`) or of conversion (`candidates`)."""
    found = dataset_parts(dataset) if stage == "data" else stages.parts(CONFIG, dataset, FILES.get(dataset, []))
    return [f"results/shards/{stage}/{dataset}/{part}/manifest.json" for part in found]


def converted_data(wildcards):
    """The rows that a part of the candidates is made of: a file, or rows of the whole data set."""
    if wildcards.part in dataset_parts(wildcards.dataset):
        return f"results/shards/data/{wildcards.dataset}/{wildcards.part}/manifest.json"
    return f"results/data/{wildcards.dataset}/manifest.json"


def joined_tables(wildcards):
    """The data sets whose rows stand behind ids in the rows of a data set."""
    names = stages.joined_sources(CONFIG, wildcards.dataset)
    return [f"results/data/{name}/manifest.json" for name in names]


def convert_settings(cfg, dataset, part):
    """The settings of converting a part of a data set, and which part of the rows it is."""
    rows = stages.parts(cfg, dataset, FILES.get(dataset, [])).get(part, "0/1")
    return {**stages.convert_settings(cfg, dataset), "rows": rows}


def clean_settings(cfg, mixture, shard):
    """The settings of cleaning a shard, and which one of how many it is."""
    count = stages.mixture_entry(cfg, mixture)["shards"]
    return {**stages.clean_settings(cfg, mixture), "shard": f"{shard}/{count}"}


def of_data():
    """The mixtures and benchmarks whose pairs are made of data, which is all but probes."""
    return one_of([*CONFIG["mixtures"], *(name for name in CONFIG["benchmarks"] if name in stages.sources(CONFIG))])


def mixture_datasets(mixture):
    """The data sets of a mixture; a benchmark is one by itself."""
    return sorted(stages.mixture_entry(CONFIG, mixture)["datasets"])


def mixture_candidates(wildcards):
    """The candidates of a mixture, and of the benchmarks whose prompts must not be in its training pairs."""
    benchmarks = stages.benchmarks_of_mixture(CONFIG, wildcards.mixture)
    return {
        key: [path for name in names for path in part_manifests("candidates", name)]
        for key, names in (("data", mixture_datasets(wildcards.mixture)), ("benchmarks", benchmarks))
    }


def mixture_data(wildcards):
    """The data sets of a mixture, as downloaded."""
    return [f"results/data/{name}/manifest.json" for name in mixture_datasets(wildcards.mixture)]


def pair_shards(wildcards):
    """The shards of a mixture's pairs."""
    count = stages.mixture_entry(CONFIG, wildcards.mixture)["shards"]
    return [f"results/shards/pairs/{wildcards.mixture}/{shard}/manifest.json" for shard in range(count)]


def token_shards(wildcards):
    """The shards of a mixture's tokens for a model."""
    count = stages.mixture_entry(CONFIG, wildcards.mixture)["shards"]
    folder = f"results/shards/tokens/{wildcards.mixture}/{wildcards.model}"
    return [f"{folder}/{shard}/manifest.json" for shard in range(count)]


def shard_threads(wildcards):
    """Shards that are tokenised side by side share the cores."""
    return max(1, all_cores() // stages.mixture_entry(CONFIG, wildcards.mixture)["shards"])


def base_inputs(wildcards):
    """What a base model is made of: local files, or the mixture that its tokenizer is trained on."""
    model = CONFIG["models"][wildcards.model]
    if "init" in model:
        return [f"results/pairs/{model['init']['tokenizer']['mixture']}/stats.json"]
    return local_model_files(CONFIG["models"][wildcards.model])


def run_tokens(wildcards):
    """The tokens that a run trains on."""
    run = RUNS[wildcards.run]
    return f"results/tokens/{run.mixture}/{run.model}/manifest.json"


def run_base(wildcards):
    """The base model of a run."""
    return f"results/base/{RUNS[wildcards.run].model}/manifest.json"


def judged_on(wildcards):
    """The mixture or benchmark that a run is evaluated on."""
    return RUNS[wildcards.run].mixture if wildcards.benchmark == stages.EVAL else wildcards.benchmark


def benchmark_tokens(wildcards):
    """The tokens that a run is evaluated on."""
    return f"results/tokens/{judged_on(wildcards)}/{RUNS[wildcards.run].model}/manifest.json"


def benchmark_pair_statistics(wildcards):
    """The pairs that these tokens were made of."""
    return f"results/pairs/{judged_on(wildcards)}/stats.json"


def gated():
    """What is asked for in `fail_below`, and the metrics that show whether it holds."""
    wanted = stages.limits(CONFIG, [*RUNS.values(), *ENSEMBLES.values()])
    return wanted, [f"results/evals/{run}/{name}/metrics.json" for run, own in wanted.items() for name in own]


def evaluations(name, runs=None):
    """A file of every evaluation of every run and ensemble, or of these runs."""
    paths = []
    for run in [*RUNS.values(), *ENSEMBLES.values()] if runs is None else runs:
        for benchmark in [stages.EVAL] * stages.has_eval(CONFIG, run) + list(run.benchmarks):
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
    return canonical(stages.ensemble_settings(CONFIG, ENSEMBLES[wildcards.ensemble], wildcards.benchmark))


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
    runs = list(RUNS.values())
    benchmarks = {name for run in runs for name in run.benchmarks}
    tokenizers = {CONFIG["models"][run.model].get("init", {}).get("tokenizer", {}).get("mixture") for run in runs}
    mixtures = sorted({run.mixture for run in runs} | benchmarks | tokenizers - {None})
    tokens = sorted({(name, run.model) for run in runs for name in (run.mixture, *run.benchmarks)})
    paths = [f"results/base/{run.model}/manifest.json" for run in runs]
    for name in stages.used_sources(CONFIG, runs):
        paths += [f"results/data/{name}/manifest.json", *part_manifests("data", name)]
    for name in mixtures:
        paths += [f"results/pairs/{name}/stats.json", *pair_shards(SimpleNamespace(mixture=name))]
        if name not in stages.probe_benchmarks(CONFIG):
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


# A cluster's jobs get the GPUs that its profile asks for, not as many as the login host or a job's machine shows.
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
GPUS = 0 if ON_CLUSTER else machine.visible_gpus()
if GPUS and workflow.is_main_process:
    # Without a limit of its own, snakemake would hand the same GPUs to several jobs at once.
    workflow.global_resources.setdefault("gpu", GPUS)


def refuse_second_instance():
    """Hold the results folder as long as this process lives."""
    global INSTANCE
    try:
        INSTANCE = machine.hold_folder(Path("results"))
    except UserError as error:
        logger.error(str(error))
        os._exit(1)


def check_cluster():
    """Refuse what the cluster cannot run, and end jobs of this folder that an earlier run left behind."""
    if workflow.executor_plugin.name != "slurm":
        return
    try:
        requests = slurm_requests()
        problems = slurm.problems(requests, slurm.read_machines(), slurm.read_accounts())
        places = {(request.partition, request.account) for request in requests}
        folder = Path.cwd()
        if not problems and any(slurm.unseen(folder, *place) for place in places):
            problems = [f"the cluster's machines do not see {folder}: move the project to a folder that all share"]
        if problems:
            raise UserError("\n".join(["Slurm cannot run this; see --workflow-profile.", *problems]))
        slurm.cancel_old_jobs(folder, workflow.executor_settings.jobname_prefix)
        workflow.scheduler._executor._failed_nodes = slurm.Fixed(workflow.scheduler._executor._failed_nodes)
    except UserError as error:
        logger.error(str(error))
        os._exit(1)


def slurm_requests():
    """What each rule that will run as a job asks for, at each attempt."""
    jobs = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    found = []
    for job in jobs.values():
        for attempt in range(1, workflow.execution_settings.retries + 2):
            job.attempt = attempt
            found.append(slurm_request(job, attempt))
        job.attempt = 1
    return found


def slurm_request(job, attempt):
    """What a job asks for at an attempt."""
    ask = job.resources.get
    return slurm.Request(
        job.rule.name,
        attempt,
        partition=str(ask("slurm_partition") or "") or None,
        account=str(ask("slurm_account") or "") or None,
        machines=ask("nodes", 1),
        cores=ask("cpus_per_task", job.threads),
        memory=ask("mem_mb", 0),
        gpus=ask("gpu", 0),
        minutes=ask("runtime", 0),
        launcher=ask("launcher", ""),
        tasks=ask("tasks"),
        tasks_per_gpu=ask("tasks_per_gpu"),
    )


def last_screen():
    """The summary and where the results lie."""
    if not Path("results/summary.tsv").exists():
        return ""
    metrics = [Path(path) for path in evaluations("metrics.json") if Path(path).exists()]
    models = " ".join(f"results/models/{run}" for run in RUNS)
    try:
        table = summary.screen(Path("results/summary.tsv"), metrics, comparisons=Path("results/comparisons.json"))
    except UserError as error:
        return f"no summary: {error}"
    return f"\n{table}\n\nreport  results/report.html\nmodels  {models}\n"


def failed_screen():
    """What is there all the same when jobs failed, and what is not: results of an earlier run do not count."""
    unfinished = list(workflow.dag.needrun_jobs())
    missing = {str(path) for job in unfinished for path in job.output}
    metrics = [Path(path) for path in evaluations("metrics.json") if path not in missing and Path(path).exists()]
    first = [job for job in unfinished if not any(other in unfinished for other in workflow.dag.dependencies[job])]
    lines = []
    for job in first:
        lines.append(f"failed  {' '.join([job.rule.name, *job.wildcards])}; see {' '.join(job.log)}")
        lines += [f"  {line}" for path in job.log for line in summary.failure(Path(path))]
    if {job.rule.name for job in first} != {"gate"}:
        lines.append("The same command goes on where this one ended.")
    try:
        table = f"\n{summary.screen(None, metrics)}\n" if metrics else "\nno evaluation is up to date"
    except UserError as error:
        table = f"\nno summary: {error}"
    return "\n".join([table, *lines, ""])
