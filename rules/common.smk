import hashlib
import os
import resource
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake.sourcecache import GenericSourceFile, LocalSourceFile

LEAST_MEMORY = 1 << 30  # the smallest stages take almost as much; below half of it, snakemake fails here or there
MEMORY = resource.getrlimit(resource.RLIMIT_AS)[0]
if MEMORY != resource.RLIM_INFINITY and MEMORY < LEAST_MEMORY:
    logger.error(
        f"the address space of a process is limited to {MEMORY >> 20} MiB, which is too little: raise it to "
        f"{LEAST_MEMORY >> 20} MiB or more with `ulimit -v`"
    )
    os._exit(1)  # an exception would need more memory

IS_MODULE = not workflow.modifier.is_main_snakefile()
PATHS = workflow.modifier.path_modifier


def placed(path):
    """A path in the folder of results as rules write it: with the prefix of a module that imports them."""
    return PATHS.replace_prefix(path)


def outside(path):
    """An input from outside of the folder of results, which a module's prefix does not move."""
    return path if placed(path) == path else local(path)


def local_root():
    """The folder with rewardline's files: where this one is, or a copy of what snakemake reads from elsewhere."""
    here = workflow.current_basedir
    if isinstance(here, LocalSourceFile):
        return Path(str(here)).parent
    address = here.get_path_or_uri(secret_free=True)
    # Not the cache of sources, which has another path at each start.
    copy = Path(".snakemake") / "rewardline" / hashlib.sha256(address.encode()).hexdigest()[:12]

    def fetch(name):
        content = Path(workflow.sourcecache.get_path(here.get_basedir().join(name))).read_bytes()
        target = copy / name
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(target)

    names = Path(workflow.sourcecache.get_path(here.join("sources.txt"))).read_text().split()
    # Clones of git repositories are read by one thread at a time.
    with ThreadPoolExecutor(8 if isinstance(here, GenericSourceFile) else 1) as pool:
        list(pool.map(fetch, names))
    return copy


RESULTS = placed("results/").rstrip("/")
ROOT = local_root()
SCRIPTS = (Path(".") if ROOT.resolve() == Path.cwd().resolve() else ROOT) / "scripts"
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.core import gpus, locks
from rewardline.core.cli import print_anything
from rewardline.core.errors import UserError
from rewardline.core.files import writable_temporary_folder
from rewardline.core.hashing import canonical
from rewardline.core.provenance import program_files
from rewardline.data.formats.joins import check_joins
from rewardline.data.formats.registry import check
from rewardline.data.remote import record
from rewardline.data.remote.addresses import is_remote
from rewardline.data.sources.local_files import check_pins, expand_files
from rewardline.evaluation.settings import HELD_OUT
from rewardline.report import summary, terminal
from rewardline.training import halving
from rewardline.workflow import runs, slurm
from rewardline.workflow import settings as stage_settings
from rewardline.workflow.config_checks import check_start
from rewardline.workflow.config_files import RepeatedKeyError, with_written_keys, written_text
from rewardline.workflow.resolve import ConfigError, load_public_datasets, resolve

print_anything()

# Stages run in the environment of this process, unless snakemake activates another.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))


def check_folders():
    """Raise a `WorkflowError` for folders in which snakemake and the stages cannot work."""
    if set("{}") & set(str(ROOT)):
        raise WorkflowError(f"{ROOT} has braces in its name, which snakemake reads as wildcards; rename the folder")
    if shlex.quote(RESULTS) != RESULTS:
        raise WorkflowError(f"prefix: {RESULTS} cannot stand in a command; leave out spaces and signs that shells read")
    parts = [Path(name) for name in (".snakemake", RESULTS)]
    for folder in dict.fromkeys(path if path.exists() else Path(".") for path in parts):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WorkflowError(
                f"{folder.resolve()} cannot be written to; make it writable, or run in another folder with --directory"
            )


def check_temporary_folder():
    """Have temporary files go where they can be written: elsewhere than to a TMPDIR that is missing or full."""
    try:
        warning = writable_temporary_folder()
    except UserError as error:
        raise WorkflowError(str(error)) from None
    if warning and workflow.is_main_process:
        logger.warning(warning)


check_folders()
check_temporary_folder()


def selected_runs():
    """Names of the runs in the --configfile files; None, for all runs of the configuration, if there are none."""
    files = [] if IS_MODULE else workflow.overwrite_configfiles
    names = {name for path in files for name in with_written_keys(load_configfile(path), WRITTEN).get("runs") or ()}
    if files and not names and workflow.is_main_process:
        meant = f"the runs of config/config.yaml are meant: {', '.join(CONFIG.all_runs)}"
        logger.warning(f"{' and '.join(path.name for path in files)} names no `runs:`, so {meant}")
    return names or None


def record_of_remote_files(name, entry):
    """What is known of the files of a dataset that are elsewhere, and a warning; jobs take what was known at the start."""
    path = Path(placed(f"results/remote/{name}/files.json"))
    return record.update(path, entry.files or [], entry.sha256, ask=workflow.is_main_process)


def read_sources():
    """The names of the datasets and benchmarks that are read, for runs or for scoring jobs."""
    reserved = {name for scored in (*SCORING, *LABELING) for name in runs.reserved_benchmarks(CONFIG, scored)}
    joined = {name for benchmark in reserved for name in runs.joined_sources(CONFIG, benchmark)}
    return sorted({*runs.used_sources(CONFIG, RUNS.values()), *reserved, *joined})


def find_files():
    """The files of every dataset that the runs use, the versions of those from elsewhere, and local files of models."""
    files, versions, problems = {}, {}, []
    kinds = ("datasets", "benchmarks", "scoring", "to_label")
    for name in [*read_sources(), *SCORING, *LABELING]:
        sections = {kind: getattr(CONFIG, kind) for kind in kinds}
        section, entry = next((section, entries[name]) for section, entries in sections.items() if name in entries)
        try:
            known, warning = record_of_remote_files(name, entry)
            files[name], versions[name] = expand_files(entry.files or [], known.patterns), known.versions
            if warning and workflow.is_main_process:
                logger.warning(f"{section}.{name}.files: {warning}")
            check_pins(entry.sha256, files[name])
        except UserError as error:
            problems.append(f"{section}.{name}.files: {error}")
        if section in ("scoring", "to_label"):
            continue
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
    return files, versions, model_files


try:
    # Snakemake lists the files of the command line first, though their values replace those of the others.
    FILES_OF_CONFIG = sorted(map(Path, workflow.configfiles), key=workflow.overwrite_configfiles.__contains__)
    WRITTEN = written_text([] if IS_MODULE else FILES_OF_CONFIG)
    CONFIG = resolve(config, load_public_datasets(ROOT / "config" / "datasets.yaml"), WRITTEN)
except (ConfigError, RepeatedKeyError) as error:
    raise WorkflowError(f"The configuration has mistakes.\n{error}") from None
SELECTED = selected_runs()
RUNS = {run.run_id: run for run in runs.run_table(CONFIG, SELECTED)}
ENSEMBLES = {ensemble.run_id: ensemble for ensemble in runs.ensemble_table(CONFIG, SELECTED)}
AVERAGES = {average.run_id: average for average in runs.average_table(CONFIG, SELECTED)}
MODELS = {**RUNS, **AVERAGES}
# What is shown and compared: all but the models that audits are made with.
SHOWN = {run_id: run for run_id, run in MODELS.items() if run.name not in CONFIG.folds}
AUDITS = sorted({CONFIG.folds[run.name].audit for run in RUNS.values() if run.name in CONFIG.folds})
AUGMENTED = [name for name, entry in CONFIG.mixtures.items() if entry.augment is not None]
CLEANED = [name for name, entry in CONFIG.mixtures.items() if entry.audit is not None]
HALVED = runs.halved_sweeps(CONFIG)
CHOICES = {choice.name: choice for choice in runs.choice_table(CONFIG, SELECTED)}
SCORING = runs.scoring_table(CONFIG, SELECTED)
LABELING = runs.labeling_table(CONFIG, SELECTED)
# What scores which rows, by the place of the scores: of each member of a choice of pairs to label there are some.
SCORED = SCORING | {f"{job.name}/{one.run}": one for job in LABELING.values() for one in job.members}
PROBES = [name for name, entry in CONFIG.benchmarks.items() if entry.probes is not None]
FILES, VERSIONS, MODEL_FILES = find_files()


def one_of(names):
    """A wildcard constraint that matches exactly these names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(runs.stored_sources(CONFIG)),
    mixture=one_of([*CONFIG.mixtures, *CONFIG.benchmarks]),
    probes=one_of(PROBES),
    fold=one_of(CONFIG.folds),
    cleaned=one_of(CLEANED),
    augmented=one_of(AUGMENTED),
    audit=one_of(AUDITS),
    model=one_of(CONFIG.models),
    part=r"[A-Za-z0-9_.-]+",
    shard=r"\d+",
    run=one_of(RUNS),
    sweep=one_of(HALVED),
    rung=r"\d+",
    ensemble=one_of(ENSEMBLES),
    average=one_of(AVERAGES),
    choice=one_of(CHOICES),
    scoring=one_of(SCORING),
    scored=one_of(SCORED),
    pool=one_of(LABELING),
    benchmark=one_of([*CONFIG.benchmarks, HELD_OUT]),


# Those whose pairs are not made of the pairs of another mixture.
BUILT = one_of({*CONFIG.mixtures, *CONFIG.benchmarks} - {*PROBES, *CONFIG.folds, *CLEANED, *AUGMENTED})


def code(program):
    """The files of a stage's program, with all modules that it imports: an edit of any of them reruns the stage."""
    return [outside(str(path)) for path in program_files(SCRIPTS / program)]


def program(name):
    """The command that runs a stage's program."""
    return f"python {shlex.quote(str(SCRIPTS / name))}"


def settings(function):
    """A params function: the canonical JSON of the settings that `function` returns for wildcards.

    A stage gets its settings from nowhere else, so that it reruns exactly when one of them changes.
    """
    return lambda wildcards: function(wildcards).canonical_json()
