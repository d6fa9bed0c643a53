rule base_model:
    input:
        sources=base_inputs,
        code=code("base_model.py"),
    output:
        manifest="results/base/{model}/manifest.json",
    log:
        "results/logs/base_model/{model}.log",
    benchmark:
        "results/usage/base_model/{model}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.base_settings(CONFIG, w.model, MODEL_FILES.get(w.model, []))),
        pairs=tokenizer_pairs,
    message:
        "Preparing base model {wildcards.model}"
    shell:
        program("base_model.py") + " --settings {params.settings:q} {params.pairs:q}"
        " --output $(dirname {output.manifest:q}) --log {log}"
