rule train:
    input:
        tokens=lambda w: f"results/tokens/{RUNS[w.run].mixture}/{RUNS[w.run].model}/manifest.json",
        base=lambda w: f"results/base/{RUNS[w.run].model}/manifest.json",
        eval_tokens=eval_tokens,
        result=lambda w: last_result(w.run, RUNS[w.run].sweep),
        rungs=lambda w: ancient(rung_files(RUNS[w.run].sweep)),
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
    threads: train_threads
    resources:
        gpu=GPUS,
        nodes=1,
        processes=1,
        launcher="",
    params:
        eval_tokens=eval_token_options,
        settings=settings(lambda w: stage_settings.train_settings(CONFIG, RUNS[w.run])),
        last_step=lambda w: last_step(w.run, RUNS[w.run].sweep),
    message:
        "Training {wildcards.run}"
    shell:
        "{resources.launcher} "
        + program("train.py")
        + " --settings {params.settings:q} --tokens $(dirname {input.tokens:q}) --eval-tokens {params.eval_tokens:q}"
        " --base $(dirname {input.base:q}) --output $(dirname {output.model:q}) --rungs {input.rungs:q}"
        f" --checkpoints {RESULTS}/checkpoints/{{wildcards.run}} --trackers {RESULTS}/trackers"
        " --gpus $(({resources.gpu} / {resources.nodes})) --processes {resources.processes} --log {log}"
