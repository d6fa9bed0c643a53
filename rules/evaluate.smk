rule evaluate:
    input:
        run="results/models/{run}/run.json",
        tokens=lambda w: f"results/tokens/{evaluated_on(w)}/{RUNS[w.run].model}/manifest.json",
        pairs=lambda w: f"results/pairs/{evaluated_on(w)}/stats.json",
        code=code("evaluate.py"),
    output:
        scores="results/evals/{run}/{benchmark}/scores.parquet",
        metrics="results/evals/{run}/{benchmark}/metrics.json",
    log:
        "results/logs/evaluate/{run}/{benchmark}.log",
    benchmark:
        "results/usage/evaluate/{run}/{benchmark}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads
    resources:
        gpu=min(1, GPUS),
    params:
        settings=settings(lambda w: stage_settings.evaluate_settings(CONFIG, RUNS[w.run], w.benchmark)),
    message:
        "Evaluating {wildcards.run} on {wildcards.benchmark}"
    shell:
        program("evaluate.py") + " --settings {params.settings:q} --model $(dirname {input.run:q})"
        " --tokens $(dirname {input.tokens:q}) --pairs $(dirname {input.pairs:q})"
        " --output $(dirname {output.metrics:q})"
        f" --shards {RESULTS}/shards/scores/{{wildcards.run}}/{{wildcards.benchmark}}"
        " --gpus {resources.gpu} --log {log}"


rule evaluate_ensemble:
    input:
        metrics=member_evaluations("metrics.json"),
        scores=member_evaluations("scores.parquet"),
        code=code("evaluate_ensemble.py"),
    output:
        scores="results/evals/{ensemble}/{benchmark}/scores.parquet",
        metrics="results/evals/{ensemble}/{benchmark}/metrics.json",
    log:
        "results/logs/evaluate_ensemble/{ensemble}/{benchmark}.log",
    benchmark:
        "results/usage/evaluate_ensemble/{ensemble}/{benchmark}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.ensemble_settings(CONFIG, ENSEMBLES[w.ensemble], w.benchmark)),
        members=lambda wildcards, input: [str(Path(path).parent) for path in input.metrics],
    message:
        "Evaluating {wildcards.ensemble} on {wildcards.benchmark}"
    shell:
        program("evaluate_ensemble.py") + " --settings {params.settings:q} --members {params.members:q}"
        " --output $(dirname {output.metrics:q}) --log {log}"
