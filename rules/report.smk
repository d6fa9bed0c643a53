rule summarize:
    input:
        metrics=evaluations("metrics.json"),
        models=of_runs("results/models/{run}/run.json"),
        code=code("summarize.py"),
    output:
        runs=report(
            "results/runs.tsv",
            caption="../report/runs.rst",
            category="Results",
            labels={"what": "table of training runs"},
        ),
        summary=report(
            "results/summary.tsv",
            caption="../report/summary.rst",
            category="Results",
            labels={"what": "table of runs and benchmarks"},
        ),
    log:
        "results/logs/summarize.log",
    benchmark:
        "results/usage/summarize.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Summarizing all evaluations"
    shell:
        program("summarize.py") + " --metrics {input.metrics:q} --models {input.models:q}"
        " --output {output.summary:q} --runs {output.runs:q} --log {log}"


rule evaluation_card:
    input:
        metrics=lambda w: evaluations("metrics.json", [MODELS[w.run]]),
        model="results/models/{run}/run.json",
        code=code("evaluation_card.py"),
    output:
        card=report(
            "results/models/{run}/EVALUATION.md",
            caption="../report/evaluation_card.rst",
            category="Evaluation cards",
            labels={"run": "{run}"},
        ),
    log:
        "results/logs/evaluation_card/{run}.log",
    benchmark:
        "results/usage/evaluation_card/{run}.tsv"
    wildcard_constraints:
        run=one_of(MODELS),
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Writing the evaluation card of {wildcards.run}"
    shell:
        program("evaluation_card.py") + " --metrics {input.metrics:q} --output {output.card:q} --log {log}"


rule track:
    input:
        metrics=lambda w: evaluations("metrics.json", [RUNS[w.run]]),
        model="results/models/{run}/run.json",
        code=code("track.py"),
    output:
        tracked="results/tracked/{run}.json",
    log:
        "results/logs/track/{run}.log",
    benchmark:
        "results/usage/track/{run}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.track_settings(CONFIG, RUNS[w.run])),
    message:
        "Recording the benchmarks of {wildcards.run}"
    shell:
        program("track.py") + " --settings {params.settings:q} --metrics {input.metrics:q}"
        f" --model $(dirname {{input.model:q}}) --trackers {RESULTS}/trackers"
        " --output {output.tracked:q} --log {log}"


rule plot:
    input:
        summary="results/summary.tsv",
        metrics=evaluations("metrics.json"),
        scores=evaluations("scores.parquet"),
        models=of_runs("results/models/{run}/run.json"),
        logs=of_runs("results/models/{run}/log.jsonl"),
        stats=pair_statistics(),
        tokens=token_manifests(),
        comparisons="results/comparisons.json",
        suspects="results/suspects.parquet",
        selections=selections(),
        audits=audits(),
        scored=scored(),
        code=code("plot.py"),
    output:
        page=report(
            "results/report.html",
            caption="../report/report.rst",
            category="Results",
            labels={"what": "report for people"},
        ),
    log:
        "results/logs/plot.log",
    benchmark:
        "results/usage/plot.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        models=[placed(folder) for folder in of_runs("results/models/{run}")],
        pairs=evaluated_pairs(),
    message:
        "Writing the report"
    shell:
        program("plot.py") + " --metrics {input.metrics:q} --scores {input.scores:q} --models {params.models:q}"
        " --stats {input.stats:q} --tokens {input.tokens:q} --pairs {params.pairs:q} --suspects {input.suspects:q}"
        " --comparisons {input.comparisons:q} --selections {input.selections:q} --audits {input.audits:q} --scored {input.scored:q} --summary {input.summary:q} --output {output.page:q} --log {log}"


rule gate:
    input:
        metrics=gated_metrics(),
        report="results/report.html",
        code=code("gate.py"),
    output:
        gate="results/gate.json",
    log:
        "results/logs/gate.log",
    benchmark:
        "results/usage/gate.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=canonical(LIMITS),
    message:
        "Comparing accuracies with fail_below"
    shell:
        program("gate.py") + " --settings {params.settings:q} --metrics {input.metrics:q}"
        " --output {output.gate:q} --log {log}"
