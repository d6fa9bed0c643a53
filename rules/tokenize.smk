rule tokenize:
    input:
        pairs="results/pairs/{mixture}/stats.json",
        base="results/base/{model}/manifest.json",
        code=code("tokenize_pairs.py"),
    output:
        manifest="results/tokens/{mixture}/{model}/manifest.json",
    log:
        "results/logs/tokenize/{mixture}/{model}.log",
    conda:
        "../envs/rewardline.yaml"
    threads: all_cores()
    params:
        settings=settings(configuration.tokenize_settings, "model"),
    message:
        "Tokenizing {wildcards.mixture} for {wildcards.model}"
    shell:
        program("tokenize_pairs.py") + " --settings {params.settings:q} --pairs results/pairs/{wildcards.mixture}"
        " --base results/base/{wildcards.model} --output results/tokens/{wildcards.mixture}/{wildcards.model}"
        " --threads {threads} --log {log}"
