# What happens around the jobs: GPUs, checks of the cluster, one instance at a time, and the final summary.

# Jobs on a cluster get the GPUs that its profile requests, not those of the login host or of the node of a job.
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
GPUS = 0 if ON_CLUSTER else len(gpus.gpu_names())
if GPUS and workflow.is_main_process:
    # Without a limit, snakemake would assign the same GPUs to several jobs at once.
    workflow.global_resources.setdefault("gpu", GPUS)


def refuse_second_instance():
    """Lock the results folder as long as this process lives."""
    global INSTANCE
    try:
        INSTANCE = locks.hold_folder(Path("results"))
    except UserError as error:
        logger.error(str(error))
        os._exit(1)


def check_cluster():
    """Exit if the cluster cannot run the workflow; cancel jobs of this folder that an earlier run left behind."""
    if workflow.executor_plugin.name != "slurm":
        return
    try:
        requests = slurm_requests()
        problems = slurm.problems(requests, slurm.read_nodes(), slurm.read_accounts())
        partitions = {(request.partition, request.account) for request in requests}
        folder = Path.cwd()
        if not problems and any(slurm.is_folder_missing(folder, *names) for names in partitions):
            problems = [f"the cluster's nodes do not see {folder}: move the project to a folder that all share"]
        if problems:
            raise UserError("\n".join(["Slurm cannot run this; see --workflow-profile.", *problems]))
        slurm.cancel_old_jobs(folder, workflow.executor_settings.jobname_prefix)
        slurm.keep_nodes_of_failed_jobs(workflow)
    except UserError as error:
        logger.error(str(error))
        os._exit(1)


def slurm_requests():
    """The resources that each rule with jobs on the cluster requests, at each attempt."""
    jobs = {job.rule.name: job for job in workflow.dag.needrun_jobs() if not job.is_local}
    requests = []
    for job in jobs.values():
        for job.attempt in range(1, workflow.execution_settings.retries + 2):
            get = job.resources.get
            requests.append(
                slurm.Request(
                    job.rule.name,
                    job.attempt,
                    partition=str(get("slurm_partition") or "") or None,
                    account=str(get("slurm_account") or "") or None,
                    nodes=get("nodes", 1),
                    cores=get("cpus_per_task", job.threads),
                    memory=get("mem_mb", 0),
                    gpus=get("gpu", 0),
                    minutes=get("runtime", 0),
                    launcher=get("launcher", ""),
                    tasks=get("tasks"),
                    tasks_per_gpu=get("tasks_per_gpu"),
                )
            )
        job.attempt = 1
    return requests


def final_summary():
    """The results of all runs, and the paths of their files."""
    metrics = [Path(path) for path in evaluations("metrics.json") if Path(path).exists()]
    if not metrics or not Path("results/summary.tsv").exists():
        return ""
    models = " ".join(f"results/models/{run}" for run in RUNS)
    try:
        table = summary.final_summary(metrics, comparisons=Path("results/comparisons.json"))
    except UserError as error:
        return f"no summary: {error}"
    return f"\n{table}\n\nreport  results/report.html\nmodels  {models}\n"


def failure_summary():
    """The results that are up to date, and the messages of the jobs that failed."""
    unfinished = list(workflow.dag.needrun_jobs())
    missing = {str(path) for job in unfinished for path in job.output}
    metrics = [Path(path) for path in evaluations("metrics.json") if path not in missing and Path(path).exists()]
    first = [job for job in unfinished if not any(other in unfinished for other in workflow.dag.dependencies[job])]
    lines = []
    for job in first:
        lines.append(f"failed  {' '.join([job.rule.name, *job.wildcards])}; see {' '.join(job.log)}")
        lines += [f"  {line}" for path in job.log for line in summary.failure_message(Path(path))]
    if {job.rule.name for job in first} != {"gate"}:
        lines.append("The same command resumes where this one stopped.")
    try:
        table = f"\n{summary.final_summary(metrics)}\n" if metrics else "\nno evaluation is up to date"
    except UserError as error:
        table = f"\nno summary: {error}"
    return "\n".join([table, *lines, ""])
