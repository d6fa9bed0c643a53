import os
import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(str(workflow.current_basedir)).parent
SCRIPTS = (Path(".") if ROOT.resolve() == Path.cwd().resolve() else ROOT) / "scripts"
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.workflow import config as configuration
from rewardline.workflow import slurm, settings as stages
from rewardline.report import summary
from rewardline.core import gpus, locks
from rewardline.core.hashing import canonical
from rewardline.core.provenance import program_files
from rewardline.workflow.session import use_own_python
from rewardline.data.sources.local_files import expand_files, local_model_files
from rewardline.core.errors import UserError
from rewardline.data.formats.registry import OPTIONS, check
from rewardline.data.formats.joins import check_joins

use_own_python()


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
