rule score_rows:
    input:
        data=lambda w: f"results/data/{SCORED[w.scored].name}/manifest.json",
        run=lambda w: f"results/models/{SCORED[w.scored].run}/run.json",
        code=code("score_rows.py"),
    output:
        manifest="results/shards/scored/{scored}/{shard}/manifest.json",
    log:
        "results/logs/score_rows/{scored}/{shard}.log",
    benchmark:
        "results/usage/score_rows/{scored}/{shard}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: scoring_threads
    resources:
        gpu=min(1, GPUS),
        processes=0,
    params:
        settings=settings(lambda w: stage_settings.rows_settings(CONFIG, SCORED[w.scored], int(w.shard))),
    message:
        "Scoring shard {wildcards.shard} of {wildcards.scored}"
    shell:
        program("score_rows.py") + " --settings {params.settings:q} --data {input.data:q}"
        f" --model $(dirname {{input.run:q}}) --parts {RESULTS}/shards/scored/{{wildcards.scored}}/parts"
        " --output $(dirname {output.manifest:q}) --gpus {resources.gpu}"
        " --processes {resources.processes} --log {log}"


rule collect_scores:
    input:
        unpack(reserved_prompts),
        data="results/data/{scoring}/manifest.json",
        shards=scored_shards,
        code=code("collect_scores.py"),
    output:
        manifest="results/scores/{scoring}/manifest.json",
        scores="results/scores/{scoring}/scores.parquet",
        best="results/scores/{scoring}/best.parquet",
        rejects="results/scores/{scoring}/rejects.parquet",
    log:
        "results/logs/collect_scores/{scoring}.log",
    benchmark:
        "results/usage/collect_scores/{scoring}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.collect_settings(CONFIG, SCORING[w.scoring])),
        benchmarks=lambda wildcards, input: [f"--benchmarks={path}" for path in input.get("benchmarks", [])],
        held_out=lambda wildcards, input: [f"--held-out={path}" for path in input.get("held_out", [])],
    message:
        "Collecting the scores of {wildcards.scoring}"
    shell:
        program("collect_scores.py") + " --settings {params.settings:q} --data {input.data:q} --shards {input.shards}"
        " {params.benchmarks:q} {params.held_out:q} --output $(dirname {output.manifest:q}) --log {log}"


rule choose_pairs:
    input:
        unpack(reserved_prompts),
        data="results/data/{pool}/manifest.json",
        shards=member_shards,
        models=lambda w: [f"results/models/{member.run}/run.json" for member in LABELING[w.pool].members],
        code=code("choose_pairs.py"),
    output:
        lines="results/to_label/{pool}.jsonl",
        manifest="results/to_label/{pool}/manifest.json",
        rejects="results/to_label/{pool}/rejects.parquet",
    log:
        "results/logs/choose_pairs/{pool}.log",
    benchmark:
        "results/usage/choose_pairs/{pool}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.choose_settings(CONFIG, LABELING[w.pool])),
        benchmarks=lambda wildcards, input: [f"--benchmarks={path}" for path in input.benchmarks],
        pairs=lambda wildcards, input: [f"--pairs={path}" for path in input.held_out],
    message:
        "Choosing pairs of {wildcards.pool} to label"
    shell:
        program("choose_pairs.py") + " --settings {params.settings:q} --data {input.data:q} --shards {input.shards}"
        " --models {input.models:q} {params.benchmarks:q} {params.pairs:q} --output $(dirname {output.manifest:q})"
        " --lines {output.lines:q} --log {log}"
