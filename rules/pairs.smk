rule build_pairs:
    input:
        unpack(pair_inputs),
        code=code("build_pairs.py"),
    output:
        stats="results/pairs/{mixture}/stats.json",
        rejects="results/pairs/{mixture}/rejects.parquet",
        train=directory("results/pairs/{mixture}/train"),
        eval=directory("results/pairs/{mixture}/eval"),
    log:
        "results/logs/build_pairs/{mixture}.log",
    conda:
        "../envs/rewardline.yaml"
    params:
        settings=settings(configuration.pairs_settings, "mixture"),
    message:
        "Building pairs of {wildcards.mixture}"
    shell:
        program("build_pairs.py") + " --name {wildcards.mixture} --settings {params.settings:q} --data {input.data}"
        " --benchmarks {input.benchmarks} --output results/pairs/{wildcards.mixture} --log {log}"
