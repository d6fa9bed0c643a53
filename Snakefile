"""rewardline: from preference data to a reward model that people can trust.

    snakemake --cores all                                   the default: an embedded demo, no network
    snakemake --cores all --configfile my.yaml              your data and models
    snakemake show                                          the results that are up to date; runs nothing

Each stage is a program in scripts/ with a rule in rules/; all choices are in config/.
"""

from snakemake.logging import logger
from snakemake.sourcecache import LocalSourceFile
from snakemake.utils import min_version
from snakemake_interface_executor_plugins.settings import DeploymentMethod

min_version("9.27")


# Without one in the working directory, the default configuration is that of the sources: the demo.
DEFAULT = "config/config.yaml"
if not workflow.modifier.is_main_snakefile() or not os.path.exists(DEFAULT):
    default = workflow.current_basedir.join(DEFAULT)
    if workflow.is_main_process and not (workflow.modifier.skip_configfile or workflow.overwrite_configfiles):
        logger.warning(
            f"there is no {os.path.abspath(DEFAULT)}, so the demo is run: {default}. For runs of your own, write one there "
            "or name a file with --configfile"
        )
    DEFAULT = str(default) if isinstance(default, LocalSourceFile) else workflow.sourcecache.get_path(default)


configfile: DEFAULT


if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:

    # Built from envs/rewardline.def.
    container: "envs/rewardline.sif"


include: "rules/common.smk"
include: "rules/inputs.smk"
include: "rules/session.smk"
include: "rules/download.smk"
include: "rules/pairs.smk"
include: "rules/base_model.smk"
include: "rules/tokenize.smk"
include: "rules/train.smk"


if HALVED:  # as the jobs of a workflow with a checkpoint plan all of it, each on its own

    include: "rules/halving.smk"


include: "rules/evaluate.smk"
include: "rules/compare.smk"
include: "rules/select.smk"
include: "rules/score.smk"
include: "rules/report.smk"


report: "report/workflow.rst"


rule all:
    default_target: not IS_MODULE
    input:
        artifacts=artifacts(),
        summary="results/summary.tsv",
        runs_table="results/runs.tsv",
        comparisons="results/comparisons.json",
        suspects="results/suspects.parquet",
        report="results/report.html",
        models=of_runs("results/models/{run}/model.safetensors"),
        runs=of_runs("results/models/{run}/run.json"),
        metrics=evaluations("metrics.json"),
        made=made_models(),
        audits=audits("labels.parquet"),
        cards=evaluation_cards(),
        tracked=tracked_runs(),
        scores=evaluations("scores.parquet"),
        selections=selections(),
        scored=scored(),
        to_label=[f"results/to_label/{name}.jsonl" for name in LABELING],
        gate=["results/gate.json"] if LIMITS else [],
    localrule: True


rule show:
    input:
        rules.all.input,
    localrule: True


onstart:
    show_and_leave()
    refuse_second_instance()
    note_stops()
    check_cluster()


onsuccess:
    if not workflow.touch:
        print(final_summary())


onerror:
    print(failure_summary())
