rule evaluate:
    input:
        run="results/models/{run}/run.json",
        tokens=benchmark_tokens,
        pairs=benchmark_pair_statistics,
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
    message:
        "Evaluating {wildcards.run} on {wildcards.benchmark}"
    shell:
        program("evaluate.py") + " --settings {params.settings:q} --model results/models/{wildcards.run}"
        " --tokens $(dirname {input.tokens:q}) --pairs $(dirname {input.pairs:q})"
        " --output results/evals/{wildcards.run}/{wildcards.benchmark}"
        " --threads {threads} --gpus {resources.gpu} --log {log}"
