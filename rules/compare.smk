rule compare:
    input:
        metrics=evaluations("metrics.json"),
        scores=evaluations("scores.parquet"),
        stats=pair_statistics(),
        models=of_runs("results/models/{run}/run.json"),
        code=code("compare.py"),
    output:
        comparisons="results/comparisons.json",
        suspects="results/suspects.parquet",
    log:
        "results/logs/compare.log",
    benchmark:
        "results/usage/compare.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        pairs=evaluated_pairs(),
    message:
        "Comparing all runs"
    shell:
        program("compare.py") + " --metrics {input.metrics:q} --scores {input.scores:q}"
        " --pairs {params.pairs:q} --stats {input.stats:q} --models {input.models:q}"
        " --output {output.comparisons:q} --suspects {output.suspects:q} --log {log}"
