rule evaluate:
    input:
        run="results/models/{run}/run.json",
        tokens=benchmark_tokens,
        stats=published_stats,
        code=code("evaluate.py"),
    output:
        scores="results/evals/{run}/{benchmark}/scores.parquet",
        metrics="results/evals/{run}/{benchmark}/metrics.json",
    log:
        "results/logs/evaluate/{run}/{benchmark}.log",
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads()
    resources:
        gpu=min(1, GPUS),
    params:
        settings=run_settings(stages.evaluate_settings, "benchmark"),
        stats=lambda wildcards, input: f"--stats {input.stats}" if input.stats else "",
    message:
        "Evaluating {wildcards.run} on {wildcards.benchmark}"
    shell:
        program("evaluate.py") + " --settings {params.settings:q} --model results/models/{wildcards.run}"
        " --tokens $(dirname {input.tokens:q}) {params.stats} --output results/evals/{wildcards.run}/{wildcards.benchmark}"
        " --threads {threads} --gpus {resources.gpu} --log {log}"
