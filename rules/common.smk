import os
import shlex
import sys
import tempfile
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(str(workflow.current_basedir)).parent
SCRIPTS = (Path(".") if ROOT.resolve() == Path.cwd().resolve() else ROOT) / "scripts"
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.core import gpus, locks
from rewardline.core.cli import print_anything
from rewardline.core.errors import UserError
from rewardline.core.hashing import canonical
from rewardline.core.provenance import program_files
from rewardline.data.formats.joins import check_joins
from rewardline.data.formats.registry import check
from rewardline.data.sources.local_files import expand_files
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report import summary
from rewardline.workflow import runs, slurm
from rewardline.workflow import settings as stage_settings
from rewardline.workflow.config_checks import check_start
from rewardline.workflow.config_files import RepeatedKeyError, with_written_keys, written_text
from rewardline.workflow.resolve import ConfigError, load_public_datasets, resolve

# Stages run in the environment of this process, unless snakemake activates another.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))


def check_folders():
    """Raise a `WorkflowError` for folders in which snakemake and the stages cannot work."""
    if set("{}") & set(str(ROOT)):
        raise WorkflowError(f"{ROOT} has braces in its name, which snakemake reads as wildcards; rename the folder")
    parts = [Path(name) for name in (".snakemake", "results")]
    for folder in dict.fromkeys(path if path.exists() else Path(".") for path in parts):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WorkflowError(
                f"{folder.resolve()} cannot be written to; make it writable, or run in another folder with --directory"
            )


def check_temporary_folder():
    """Have temporary files go where they can be written: elsewhere than to a TMPDIR that is missing or full."""
    wanted = os.environ.get("TMPDIR", "/tmp")
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        raise WorkflowError("no folder takes temporary files; set TMPDIR to one with free space") from None
    if not os.path.isdir(wanted) or not os.path.samefile(found, wanted):
        os.environ["TMPDIR"] = found
        if workflow.is_main_process:
            logger.warning(
                f"{wanted} takes no temporary files; they go to {found}. Set TMPDIR to choose another folder"
            )


check_folders()
check_temporary_folder()


def selected_runs():
    """Names of the runs in the --configfile files; None, for all runs of the configuration, if there are none."""
    files = workflow.overwrite_configfiles
    names = {name for path in files for name in with_written_keys(load_configfile(path), WRITTEN).get("runs") or ()}
    if files and not names and workflow.is_main_process:
        meant = f"the runs of config/config.yaml are meant: {', '.join(CONFIG.all_runs)}"
        logger.warning(f"{' and '.join(path.name for path in files)} names no `runs:`, so {meant}")
    return names or None


def find_files():
    """The local files of every dataset and model that the runs use, by name."""
    files, problems = {}, []
    for name in runs.used_sources(CONFIG, RUNS.values()):
        section = "datasets" if name in CONFIG.datasets else "benchmarks"
        entry = runs.sources(CONFIG)[name]
        try:
            files[name] = expand_files(entry.files or [])
        except UserError as error:
            problems.append(f"{section}.{name}.files: {error}")
        try:
            check(entry)
            check_joins(entry.join)
        except UserError as error:
            problems.append(f"{section}.{name}: {error}")
    model_files = {}
    for name in sorted({run.model for run in RUNS.values()}):
        try:
            model_files[name] = stage_settings.model_files(CONFIG.models[name])
        except UserError as error:
            problems.append(f"models.{name}: {error}")
    if problems:
        raise WorkflowError("\n".join(["The configuration has mistakes.", *problems]))
    return files, model_files


try:
    # Snakemake lists the files of the command line first, though their values replace those of the others.
    WRITTEN = written_text(sorted(map(Path, workflow.configfiles), key=workflow.overwrite_configfiles.__contains__))
    CONFIG = resolve(config, load_public_datasets(ROOT / "config" / "datasets.yaml"), WRITTEN)
except (ConfigError, RepeatedKeyError) as error:
    raise WorkflowError(f"The configuration has mistakes.\n{error}") from None
SELECTED = selected_runs()
RUNS = {run.run_id: run for run in runs.run_table(CONFIG, SELECTED)}
ENSEMBLES = {ensemble.run_id: ensemble for ensemble in runs.ensemble_table(CONFIG, SELECTED)}
PROBES = [name for name, entry in CONFIG.benchmarks.items() if entry.probes is not None]
FILES, MODEL_FILES = find_files()


def one_of(names):
    """A wildcard constraint that matches exactly these names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(runs.sources(CONFIG)),
    mixture=one_of([*CONFIG.mixtures, *CONFIG.benchmarks]),
    probes=one_of(PROBES),
    model=one_of(CONFIG.models),
    part=r"[A-Za-z0-9_.-]+",
    shard=r"\d+",
    run=one_of(RUNS),
    ensemble=one_of(ENSEMBLES),
    benchmark=one_of([*CONFIG.benchmarks, HELD_OUT]),


def code(program):
    """The files of a stage's program, with all modules that it imports: an edit of any of them reruns the stage."""
    return [str(path) for path in program_files(SCRIPTS / program)]


def program(name):
    """The command that runs a stage's program."""
    return f"python {shlex.quote(str(SCRIPTS / name))}"


def settings(function):
    """A params function: the canonical JSON of the settings that `function` returns for wildcards.

    A stage gets its settings from nowhere else, so that it reruns exactly when one of them changes.
    """
    return lambda wildcards: function(wildcards).canonical_json()
