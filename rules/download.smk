rule fetch_file:
    input:
        code=code("fetch_file.py"),
    output:
        manifest="results/remote/{dataset}/{part}/manifest.json",
    log:
        "results/logs/fetch_file/{dataset}/{part}.log",
    benchmark:
        "results/usage/fetch_file/{dataset}/{part}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: fetched_settings(w.dataset, dataset_parts(w.dataset)[w.part])),
    message:
        "Fetching {wildcards.part} of {wildcards.dataset}"
    shell:
        program("fetch_file.py") + " --name {wildcards.dataset} --settings {params.settings:q}"
        " --output $(dirname {output.manifest:q}) --log {log}"


rule download_file:
    input:
        file=lambda wildcards: source_file(wildcards.dataset, wildcards.part),
        code=code("download_file.py"),
    output:
        manifest="results/shards/data/{dataset}/{part}/manifest.json",
    log:
        "results/logs/download_file/{dataset}/{part}.log",
    benchmark:
        "results/usage/download_file/{dataset}/{part}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        fetched=lambda w, input: ["--fetched", input.file] if is_remote(dataset_parts(w.dataset)[w.part]) else [],
        settings=settings(
            lambda w: stage_settings.download_file_settings(CONFIG, w.dataset, dataset_parts(w.dataset)[w.part])
        ),
    message:
        "Reading {wildcards.part} of {wildcards.dataset}"
    shell:
        program("download_file.py") + " --name {wildcards.dataset} --settings {params.settings:q} {params.fetched:q}"
        " --output $(dirname {output.manifest:q}) --log {log}"


rule download:
    input:
        parts=lambda wildcards: part_manifests(wildcards.dataset),
        code=code("download.py"),
    output:
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/logs/download/{dataset}.log",
    benchmark:
        "results/usage/download/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(set(runs.stored_sources(CONFIG)) - set(DEMO_DATASETS)),
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.download_settings(CONFIG, w.dataset, FILES.get(w.dataset, []))),
    message:
        "Downloading {wildcards.dataset}"
    shell:
        program("download.py") + " --name {wildcards.dataset} --settings {params.settings:q} --parts {input.parts}"
        " --output $(dirname {output.manifest:q}) --log {log}"


rule generate_demo:
    input:
        code=code("generate_demo.py"),
    output:
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/logs/generate_demo/{dataset}.log",
    benchmark:
        "results/usage/generate_demo/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(DEMO_DATASETS),
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: runs.sources(CONFIG)[w.dataset].demo),
    message:
        "Generating {wildcards.dataset}"
    shell:
        program("generate_demo.py") + " --name {wildcards.dataset} --settings {params.settings:q}"
        " --output $(dirname {output.manifest:q}) --log {log}"
