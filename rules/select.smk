rule select_model:
    input:
        metrics=compared_evaluations("metrics.json"),
        scores=compared_evaluations("scores.parquet"),
        models=lambda w: [f"results/models/{run}/run.json" for run in CHOICES[w.choice].runs],
        cards=lambda w: [f"results/models/{run}/EVALUATION.md" for run in CHOICES[w.choice].runs],
        code=code("select_model.py"),
    output:
        model="results/models/{choice}/model.safetensors",
        config="results/models/{choice}/config.json",
        run="results/models/{choice}/run.json",
        selection="results/models/{choice}/selection.json",
        card=report(
            "results/models/{choice}/README.md",
            caption="../report/selection.rst",
            category="Results",
            labels={"what": "the choice of {choice}"},
        ),
    log:
        "results/logs/select_model/{choice}.log",
    benchmark:
        "results/usage/select_model/{choice}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.select_settings(CONFIG, CHOICES[w.choice])),
    message:
        "Choosing {wildcards.choice}"
    shell:
        program("select_model.py") + " --settings {params.settings:q} --metrics {input.metrics:q}"
        " --scores {input.scores:q} --models {input.models:q} --output $(dirname {output.model:q}) --log {log}"
