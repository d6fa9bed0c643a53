rule train:
    input:
        tokens=run_tokens,
        base=run_base,
        code=code("train.py"),
    output:
        model="results/models/{run}/model.safetensors",
        config="results/models/{run}/config.json",
        run="results/models/{run}/run.json",
        log="results/models/{run}/log.jsonl",
        card="results/models/{run}/README.md",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/usage/train/{run}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads()
    resources:
        gpu=GPUS,
        nodes=1,
        processes=1,
        launcher="",
    params:
        settings=run_settings(stage_settings.train_settings),
    message:
        "Training {wildcards.run}"
    shell:
        "{resources.launcher} "
        + program("train.py")
        + " --settings {params.settings:q} --tokens $(dirname {input.tokens:q})"
        " --base $(dirname {input.base:q}) --output results/models/{wildcards.run}"
        " --checkpoints results/checkpoints/{wildcards.run}"
        " --threads {threads} --gpus $(({resources.gpu} / {resources.nodes})) --processes {resources.processes} --log {log}"
