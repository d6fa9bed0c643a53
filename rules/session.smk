# What happens around the jobs: GPUs, checks of the cluster, one instance at a time, and the final summary.

import atexit
import signal
import time

STARTED, STOPS, MOST_FAILURES = [], [], 3

# Jobs on a cluster get the GPUs that its profile requests, not those of the login host or of the node of a job.
ON_CLUSTER = workflow.remote_exec or workflow.resource_settings.nodes is not None
GPUS = 0 if ON_CLUSTER else len(gpus.gpu_names())
if workflow.is_main_process and gpus.ignored_gpus():
    logger.warning(gpus.ignored_gpus())
if GPUS and workflow.is_main_process:
    # Without a limit, snakemake would assign the same GPUs to several jobs at once.
    workflow.global_resources.setdefault("gpu", GPUS)


def show_jobs_as_lines():
    """Have the terminal show a line for each finished job, where the profile asks not to be told why it runs."""
    settings = workflow.output_settings
    if settings.verbose or Quietness.REASON not in settings.quiet:
        return
    for handler in logger.handlers:
        if handler.get_name() == "DefaultStreamHandler":  # and not a logger that the user has chosen
            on_terminal = not handler.nocolor
            lines = terminal.JobLines(handler.formatter, settings.dryrun, on_terminal, lambda: bool(STOPS))
            handler.setFormatter(lines)
            handler.addFilter(lines)


def refuse_second_instance():
    """Lock the results folder as long as this process lives."""
    global INSTANCE
    try:
        INSTANCE = locks.hold_folder(Path(RESULTS))
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


# What fails later is said now; other environments have packages of their own.
if workflow.is_main_process:
    own = not (ON_CLUSTER or workflow.deployment_settings.deployment_method)
    if problems := check_start(CONFIG, RUNS.values(), GPUS if own else None):
        raise WorkflowError("\n".join(["The configuration cannot work here.", *problems]))


def note_stops():
    """Note in `STOPS` when a person or a cluster stops this process, which then does what it did before."""
    STARTED.append(time.time())
    for number in (signal.SIGINT, signal.SIGTERM):
        act = signal.getsignal(number)
        if callable(act):
            signal.signal(number, lambda *received, act=act: stop(act, *received))


def stop(act, number, frame):
    """Stop on a first signal; a second Ctrl-C would break off what snakemake does then, and is for the jobs alone."""
    STOPS.append(number)
    if STOPS.count(signal.SIGINT) < 2 or number != signal.SIGINT:
        act(number, frame)
    elif STOPS.count(signal.SIGINT) > 2:
        os._exit(130)
    else:
        logger.warning("waiting for the jobs to end; Ctrl-C once more leaves at once")


def current(paths):
    """The files among `paths` that are up to date, as far as this invocation's jobs say it."""
    known = {str(path) for job in workflow.dag.jobs for path in job.output}
    stale = {str(path) for job in workflow.dag.needrun_jobs() for path in job.output}
    return [Path(path) for path in map(placed, paths) if path in known - stale and Path(path).exists()]


def final_summary():
    """The results that are up to date: the table of all runs, what became of the data, and where the files are."""
    comparisons = next(iter(current(["results/comparisons.json"])), None)
    models = [
        str(path.parent) for path in current([*selections(), *of_runs("results/models/{run}/run.json"), *made_models()])
    ]
    if sum(map(len, models)) > 160:
        models = [f"{RESULTS}/models, {len(models):,} of them"]
    places = [("report", list(map(str, current(["results/report.html"])))), ("models", models)]
    others = []
    for part in (
        lambda: summary.halvings(current(used_rungs())),
        lambda: summary.choices(current(selections())),
        lambda: summary.scored(current(scored())),
        lambda: summary.audits(current(audits())),
        lambda: summary.account(current(pair_statistics()), current(token_manifests()), current(base_manifests())),
    ):
        try:
            others.append(part())
        except UserError as error:
            others.append(f"no summary: {error}")
    others.append("\n".join(f"{name}  {' '.join(paths)}" for name, paths in places if paths))
    try:
        text = summary.final_summary(current(evaluations("metrics.json")), comparisons=comparisons, others=others)
    except UserError as error:
        text = "\n\n".join(filter(None, [f"no summary: {error}", *others]))
    return f"\n{text}\n"


def failure_summary():
    """The results that are up to date, and the messages of the jobs that failed, or were stopped."""
    unfinished = list(workflow.dag.needrun_jobs())
    first = [job for job in unfinished if not any(other in unfinished for other in workflow.dag.dependencies[job])]
    lines, failed = [], 0
    for job in first:
        logs = [Path(path) for path in job.log if Path(path).exists() and Path(path).stat().st_mtime >= STARTED[0]]
        message = [line for path in logs for line in summary.failure_message(path)]
        stop, name = "".join(map(summary.stop_message, logs)), " ".join([job.rule.name, *job.wildcards])
        if stop:
            lines.append(f"stopped  {name} {stop}")
        elif message or not STOPS:
            failed += 1
            if failed > MOST_FAILURES:
                continue
            message = message or [line for path in logs for line in summary.abrupt_end(path)]
            lines += [f"failed  {name}; see {' '.join(job.log)}", *(f"  {line}" for line in message)]
    if failed > MOST_FAILURES:
        lines.append(f"and {failed - MOST_FAILURES:,} more jobs failed; see {RESULTS}/logs")
    if STOPS and not lines:
        lines.append("stopped on request")
    if {job.rule.name for job in first} != {"gate"}:
        lines.append("The same command resumes where this one stopped.")
    return "\n".join([final_summary(), *lines, ""])


def show_and_leave():
    """If `show` is asked for, print the results that are up to date and end, before any job starts."""
    if any(job.rule.name == "show" for job in workflow.dag.targetjobs):
        print(final_summary(), flush=True)
        os._exit(0)


def show_if_nothing_to_do():
    """Print the results where Snakemake has nothing to do, and calls none of the workflow's handlers."""
    if getattr(workflow, "scheduler", None) and not workflow.dryrun and not len(workflow.dag):
        print(final_summary())


if workflow.is_main_process and not IS_MODULE:
    atexit.register(show_if_nothing_to_do)
    show_jobs_as_lines()
