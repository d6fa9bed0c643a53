rule score_benchmark:
    input:
        run="results/models/{run}/run.json",
        tokens=lambda w: f"results/tokens/{evaluated_on(w)}/{MODELS[w.run].model}/manifest.json",
        code=code("score_benchmark.py"),
    output:
        scored="results/shards/scores/{run}/{benchmark}/{shard}.json",
    log:
        "results/logs/score_benchmark/{run}/{benchmark}/{shard}.log",
    benchmark:
        "results/usage/score_benchmark/{run}/{benchmark}/{shard}.tsv"
    wildcard_constraints:
        run=one_of(MODELS),
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads
    resources:
        gpu=min(1, GPUS),
        processes=0,
    params:
        settings=settings(lambda w: stage_settings.share_settings(CONFIG, MODELS[w.run], w.benchmark, int(w.shard))),
    message:
        "Scoring shard {wildcards.shard} of {wildcards.benchmark} with {wildcards.run}"
    shell:
        program("score_benchmark.py") + " --settings {params.settings:q} --model $(dirname {input.run:q})"
        " --tokens $(dirname {input.tokens:q}) --shards $(dirname {output.scored:q}) --output {output.scored:q}"
        " --gpus {resources.gpu} --processes {resources.processes} --log {log}"


rule evaluate:
    input:
        run="results/models/{run}/run.json",
        tokens=lambda w: f"results/tokens/{evaluated_on(w)}/{MODELS[w.run].model}/manifest.json",
        pairs=lambda w: f"results/pairs/{evaluated_on(w)}/stats.json",
        shares=score_shares,
        code=code("evaluate.py"),
    output:
        scores="results/evals/{run}/{benchmark}/scores.parquet",
        metrics="results/evals/{run}/{benchmark}/metrics.json",
    log:
        "results/logs/evaluate/{run}/{benchmark}.log",
    benchmark:
        "results/usage/evaluate/{run}/{benchmark}.tsv"
    wildcard_constraints:
        run=one_of(MODELS),
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads
    resources:
        gpu=lambda wildcards: 0 if score_shares(wildcards) else min(1, GPUS),
        processes=0,
    params:
        settings=settings(lambda w: stage_settings.evaluate_settings(CONFIG, MODELS[w.run], w.benchmark)),
    message:
        "Evaluating {wildcards.run} on {wildcards.benchmark}"
    shell:
        program("evaluate.py") + " --settings {params.settings:q} --model $(dirname {input.run:q})"
        " --tokens $(dirname {input.tokens:q}) --pairs $(dirname {input.pairs:q})"
        " --output $(dirname {output.metrics:q})"
        f" --shards {RESULTS}/shards/scores/{{wildcards.run}}/{{wildcards.benchmark}} --shares {{input.shares:q}}"
        " --gpus {resources.gpu} --processes {resources.processes} --log {log}"


rule evaluate_ensemble:
    input:
        metrics=member_evaluations("metrics.json"),
        scores=member_evaluations("scores.parquet"),
        first=other_first_evaluation,
        code=code("evaluate_ensemble.py"),
    output:
        scores="results/evals/{ensemble}/{benchmark}/scores.parquet",
        metrics="results/evals/{ensemble}/{benchmark}/metrics.json",
    log:
        "results/logs/evaluate_ensemble/{ensemble}/{benchmark}.log",
    benchmark:
        "results/usage/evaluate_ensemble/{ensemble}/{benchmark}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.ensemble_settings(CONFIG, ENSEMBLES[w.ensemble], w.benchmark)),
        members=lambda wildcards, input: [str(Path(path).parent) for path in input.metrics],
        first=lambda wildcards, input: [f"--first={path}" for path in input.first],
    message:
        "Evaluating {wildcards.ensemble} on {wildcards.benchmark}"
    shell:
        program("evaluate_ensemble.py") + " --settings {params.settings:q} --members {params.members:q}"
        " {params.first:q} --output $(dirname {output.metrics:q}) --log {log}"


rule export_ensemble:
    input:
        models=member_models("run.json"),
        metrics=lambda w: first_evaluation(w.ensemble, "metrics.json"),
        code=code("export_ensemble.py"),
    output:
        ensemble="results/models/{ensemble}/ensemble.json",
        card="results/models/{ensemble}/README.md",
    log:
        "results/logs/export_ensemble/{ensemble}.log",
    benchmark:
        "results/usage/export_ensemble/{ensemble}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(
            lambda w: stage_settings.ensemble_settings(
                CONFIG, ENSEMBLES[w.ensemble], runs.evaluated_on(CONFIG, ENSEMBLES[w.ensemble])[0]
            )
        ),
    message:
        "Exporting {wildcards.ensemble}"
    shell:
        program("export_ensemble.py") + " --settings {params.settings:q} --models {input.models:q}"
        " --metrics {input.metrics:q} --output $(dirname {output.ensemble:q}) --log {log}"


rule average_weights:
    input:
        models=member_models("run.json", AVERAGES),
        tokens=normalized_on,
        code=code("average_weights.py"),
    output:
        model="results/models/{average}/model.safetensors",
        config="results/models/{average}/config.json",
        run="results/models/{average}/run.json",
        card="results/models/{average}/README.md",
    log:
        "results/logs/average_weights/{average}.log",
    benchmark:
        "results/usage/average_weights/{average}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: train_threads
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.average_settings(CONFIG, AVERAGES[w.average])),
        tokens=lambda wildcards, input: [f"--tokens={Path(path).parent}" for path in input.tokens],
    message:
        "Averaging the weights of {wildcards.average}"
    shell:
        program("average_weights.py") + " --settings {params.settings:q} --models {input.models:q}"
        " {params.tokens:q} --output $(dirname {output.model:q}) --log {log}"


rule audit_labels:
    input:
        scores=fold_scores,
        pairs=lambda w: f"results/pairs/{CONFIG.audits[w.audit].mixture}/stats.json",
        code=code("audit_labels.py"),
    output:
        labels="results/audits/{audit}/labels.parquet",
        suspects="results/audits/{audit}/suspects.parquet",
        result="results/audits/{audit}/audit.json",
    log:
        "results/logs/audit_labels/{audit}.log",
    benchmark:
        "results/usage/audit_labels/{audit}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.audit_settings(CONFIG, w.audit)),
    message:
        "Auditing the labels of {wildcards.audit}"
    shell:
        program("audit_labels.py") + " --settings {params.settings:q} --scores {input.scores:q}"
        " --pairs $(dirname {input.pairs:q}) --output $(dirname {output.labels:q}) --log {log}"
