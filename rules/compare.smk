rule compare:
    input:
        metrics=evaluations("metrics.json"),
        scores=evaluations("scores.parquet"),
        stats=of_runs("results/pairs/{mixture}/stats.json") + benchmark_pairs(),
        code=code("compare.py"),
    output:
        comparisons="results/comparisons.json",
        suspects="results/suspects.parquet",
    log:
        "results/logs/compare.log",
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    params:
        pairs=judged_pairs(),
    message:
        "Comparing all runs"
    shell:
        program("compare.py") + " --metrics {input.metrics:q} --pairs {params.pairs:q}"
        " --output {output.comparisons:q} --suspects {output.suspects:q} --log {log}"
