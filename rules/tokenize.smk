rule tokenize_pairs:
    input:
        pairs="results/shards/pairs/{mixture}/{shard}/manifest.json",
        base="results/base/{model}/manifest.json",
        code=code("tokenize_pairs.py"),
    output:
        manifest="results/shards/tokens/{mixture}/{model}/{shard}/manifest.json",
    log:
        "results/logs/tokenize_pairs/{mixture}/{model}/{shard}.log",
    benchmark:
        "results/usage/tokenize_pairs/{mixture}/{model}/{shard}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: shard_threads
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.tokenize_settings(CONFIG, w.model)),
    message:
        "Tokenizing shard {wildcards.shard} of {wildcards.mixture} for {wildcards.model}"
    shell:
        program("tokenize_pairs.py") + " --settings {params.settings:q} --pairs $(dirname {input.pairs:q})"
        " --base $(dirname {input.base:q}) --threads {threads} --log {log}"
        " --output $(dirname {output.manifest:q})"


# The rule has the name of the stage; a program tokenize.py would hide the module of the standard library.
rule tokenize:
    input:
        shards=token_shards,
        stats="results/pairs/{mixture}/stats.json",
        code=code("join_tokens.py"),
    output:
        manifest="results/tokens/{mixture}/{model}/manifest.json",
    log:
        "results/logs/tokenize/{mixture}/{model}.log",
    benchmark:
        "results/usage/tokenize/{mixture}/{model}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.join_settings(CONFIG, w.mixture)),
    message:
        "Joining the tokens of {wildcards.mixture} for {wildcards.model}"
    shell:
        program("join_tokens.py") + " --settings {params.settings:q} --stats {input.stats:q} --shards {input.shards}"
        " --output $(dirname {output.manifest:q}) --log {log}"
