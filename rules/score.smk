rule score_rows:
    input:
        data="results/data/{scoring}/manifest.json",
        run=lambda w: f"results/models/{SCORING[w.scoring].run}/run.json",
        code=code("score_rows.py"),
    output:
        manifest="results/shards/scored/{scoring}/{shard}/manifest.json",
    log:
        "results/logs/score_rows/{scoring}/{shard}.log",
    benchmark:
        "results/usage/score_rows/{scoring}/{shard}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: scoring_threads
    resources:
        gpu=min(1, GPUS),
        processes=0,
    params:
        settings=settings(lambda w: stage_settings.rows_settings(CONFIG, SCORING[w.scoring], int(w.shard))),
    message:
        "Scoring shard {wildcards.shard} of {wildcards.scoring}"
    shell:
        program("score_rows.py") + " --settings {params.settings:q} --data {input.data:q}"
        f" --model $(dirname {{input.run:q}}) --parts {RESULTS}/shards/scored/{{wildcards.scoring}}/parts"
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
