rule train_rung:
    input:
        tokens=lambda w: f"results/tokens/{RUNS[w.run].mixture}/{RUNS[w.run].model}/manifest.json",
        base=lambda w: f"results/base/{RUNS[w.run].model}/manifest.json",
        eval_tokens=eval_tokens,
        result=lambda w: last_result(w.run, w.sweep, int(w.rung)),
        rungs=lambda w: ancient(rung_files(w.sweep, int(w.rung))),
        code=code("train.py"),
    output:
        result="results/rungs/{sweep}/{rung}/{run}.json",
    log:
        "results/logs/train_rung/{sweep}/{rung}/{run}.log",
    benchmark:
        "results/usage/train_rung/{sweep}/{rung}/{run}.tsv"
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
        settings=settings(lambda w: stage_settings.rung_settings(CONFIG, RUNS[w.run], HALVED[w.sweep], int(w.rung))),
        last_step=lambda w: last_step(w.run, w.sweep, int(w.rung)),
    message:
        "Training {wildcards.run} to rung {wildcards.rung}"
    shell:
        "{resources.launcher} "
        + program("train.py")
        + " --settings {params.settings:q} --tokens $(dirname {input.tokens:q}) --eval-tokens {params.eval_tokens:q}"
        " --base $(dirname {input.base:q}) --output {output.result:q} --rungs {input.rungs:q}"
        f" --checkpoints {RESULTS}/checkpoints/{{wildcards.run}} --trackers {RESULTS}/trackers"
        " --gpus $(({resources.gpu} / {resources.nodes})) --processes {resources.processes} --log {log}"


# After it snakemake plans anew: a run whose cell continues as before (last_step), whatever the others do, is left alone.
checkpoint halve:
    input:
        results=rung_results,
        code=code("halve.py"),
    output:
        rung="results/rungs/{sweep}/{rung}.json",
    log:
        "results/logs/halve/{sweep}/{rung}.log",
    benchmark:
        "results/usage/halve/{sweep}/{rung}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.halving_settings(w.sweep, HALVED[w.sweep], int(w.rung))),
    message:
        "Choosing the cells of {wildcards.sweep} that continue after rung {wildcards.rung}"
    shell:
        program("halve.py") + " --settings {params.settings:q} --results $(dirname {input.results[0]:q})"
        " --output {output.rung:q} --log {log}"
