rule index_joins:
    input:
        data=lambda w: data_manifests(runs.joined_sources(CONFIG, w.dataset)),
        code=code("index_joins.py"),
    output:
        manifest="results/shards/joins/{dataset}/manifest.json",
    log:
        "results/logs/index_joins/{dataset}.log",
    benchmark:
        "results/usage/index_joins/{dataset}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.join_index_settings(CONFIG, w.dataset)),
    message:
        "Indexing the rows that {wildcards.dataset} joins"
    shell:
        program("index_joins.py") + " --settings {params.settings:q} --data {input.data}"
        " --output $(dirname {output.manifest:q}) --log {log}"


rule convert_rows:
    input:
        data=converted_data,
        dataset=labelled_dataset,
        join_index=join_index,
        code=code("convert_rows.py"),
    output:
        manifest="results/shards/candidates/{dataset}/{part}/manifest.json",
    log:
        "results/logs/convert_rows/{dataset}/{part}.log",
    benchmark:
        "results/usage/convert_rows/{dataset}/{part}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(
            lambda w: stage_settings.convert_settings(CONFIG, w.dataset, candidate_parts(w.dataset)[w.part])
        ),
        dataset=lambda wildcards, input: [f"--dataset={path}" for path in input.dataset],
        join_index=lambda wildcards, input: [f"--join-index={path}" for path in input.join_index],
    message:
        "Converting {wildcards.part} of {wildcards.dataset}"
    shell:
        program("convert_rows.py") + " --name {wildcards.dataset} --settings {params.settings:q} --data {input.data}"
        " {params.dataset:q} {params.join_index:q} --output $(dirname {output.manifest:q}) --log {log}"


rule group_prompts:
    input:
        unpack(mixture_candidates),
        code=code("group_prompts.py"),
    output:
        manifest="results/shards/prompts/{mixture}/manifest.json",
    log:
        "results/logs/group_prompts/{mixture}.log",
    benchmark:
        "results/usage/group_prompts/{mixture}.tsv"
    wildcard_constraints:
        mixture=BUILT,
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.group_settings(CONFIG, w.mixture)),
    message:
        "Comparing the prompts of {wildcards.mixture}"
    shell:
        program("group_prompts.py") + " --name {wildcards.mixture} --settings {params.settings:q} --data {input.data}"
        " --benchmarks {input.benchmarks} --output $(dirname {output.manifest:q}) --log {log}"


rule clean_pairs:
    input:
        candidates=lambda wildcards: mixture_candidates(wildcards)["data"],
        prompts="results/shards/prompts/{mixture}/manifest.json",
        code=code("clean_pairs.py"),
    output:
        manifest="results/shards/pairs/{mixture}/{shard}/manifest.json",
    log:
        "results/logs/clean_pairs/{mixture}/{shard}.log",
    benchmark:
        "results/usage/clean_pairs/{mixture}/{shard}.tsv"
    wildcard_constraints:
        mixture=BUILT,
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.clean_settings(CONFIG, w.mixture, int(w.shard))),
    message:
        "Cleaning shard {wildcards.shard} of {wildcards.mixture}"
    shell:
        program("clean_pairs.py") + " --settings {params.settings:q} --prompts {input.prompts}"
        " --candidates {input.candidates}"
        " --output $(dirname {output.manifest:q}) --log {log}"


rule build_pairs:
    input:
        data=lambda w: data_manifests(mixture_datasets(w.mixture)),
        candidates=lambda wildcards: mixture_candidates(wildcards)["data"],
        prompts="results/shards/prompts/{mixture}/manifest.json",
        shards=pair_shards,
        code=code("build_pairs.py"),
    output:
        stats="results/pairs/{mixture}/stats.json",
        rejects="results/pairs/{mixture}/rejects.parquet",
        train=directory("results/pairs/{mixture}/train"),
        eval=directory("results/pairs/{mixture}/eval"),
    log:
        "results/logs/build_pairs/{mixture}.log",
    benchmark:
        "results/usage/build_pairs/{mixture}.tsv"
    wildcard_constraints:
        mixture=BUILT,
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.pairs_settings(CONFIG, w.mixture)),
    message:
        "Building pairs of {wildcards.mixture}"
    shell:
        program("build_pairs.py") + " --name {wildcards.mixture} --settings {params.settings:q} --data {input.data}"
        " --candidates {input.candidates} --prompts {input.prompts} --shards {input.shards} --output $(dirname {output.stats:q}) --log {log}"


rule build_probes:
    input:
        pairs=lambda w: f"results/pairs/{CONFIG.benchmarks[w.probes].probes.mixture}/stats.json",
        code=code("build_probes.py"),
    output:
        manifest="results/shards/pairs/{probes}/0/manifest.json",
        stats="results/pairs/{probes}/stats.json",
        rejects="results/pairs/{probes}/rejects.parquet",
    log:
        "results/logs/build_probes/{probes}.log",
    benchmark:
        "results/usage/build_probes/{probes}.tsv"
    localrule: True
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: CONFIG.benchmarks[w.probes].probes),
    message:
        "Building benchmark {wildcards.probes}"
    shell:
        program("build_probes.py") + " --name {wildcards.probes} --settings {params.settings:q}"
        " --pairs $(dirname {input.pairs:q}) --shard $(dirname {output.manifest:q})"
        " --output $(dirname {output.stats:q}) --log {log}"


rule split_fold:
    input:
        pairs=lambda w: f"results/pairs/{CONFIG.folds[w.fold].mixture}/stats.json",
        prompts=lambda w: f"results/shards/prompts/{CONFIG.folds[w.fold].mixture}/manifest.json",
        code=code("split_fold.py"),
    output:
        manifest="results/shards/pairs/{fold}/0/manifest.json",
        stats="results/pairs/{fold}/stats.json",
        rejects="results/pairs/{fold}/rejects.parquet",
    log:
        "results/logs/split_fold/{fold}.log",
    benchmark:
        "results/usage/split_fold/{fold}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.fold_settings(CONFIG, w.fold)),
    message:
        "Making {wildcards.fold}"
    shell:
        program("split_fold.py") + " --name {wildcards.fold} --settings {params.settings:q}"
        " --pairs $(dirname {input.pairs:q}) --prompts $(dirname {input.prompts:q})"
        " --shard $(dirname {output.manifest:q}) --output $(dirname {output.stats:q}) --log {log}"


rule relabel_pairs:
    input:
        pairs=lambda w: f"results/pairs/{CONFIG.source_of(w.cleaned)}/stats.json",
        labels=lambda w: f"results/audits/{CONFIG.mixtures[w.cleaned].audit}/labels.parquet",
        code=code("relabel_pairs.py"),
    output:
        manifest="results/shards/pairs/{cleaned}/0/manifest.json",
        stats="results/pairs/{cleaned}/stats.json",
        rejects="results/pairs/{cleaned}/rejects.parquet",
        audited="results/pairs/{cleaned}/audited.parquet",
    log:
        "results/logs/relabel_pairs/{cleaned}.log",
    benchmark:
        "results/usage/relabel_pairs/{cleaned}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.relabel_settings(CONFIG, w.cleaned)),
    message:
        "Cleaning the labels of {wildcards.cleaned}"
    shell:
        program("relabel_pairs.py") + " --name {wildcards.cleaned} --settings {params.settings:q}"
        " --pairs $(dirname {input.pairs:q}) --labels {input.labels:q}"
        " --shard $(dirname {output.manifest:q}) --output $(dirname {output.stats:q}) --log {log}"


rule augment_pairs:
    input:
        pairs=lambda w: f"results/pairs/{CONFIG.source_of(w.augmented)}/stats.json",
        prompts=lambda w: f"results/shards/prompts/{CONFIG.source_of(w.augmented)}/manifest.json",
        code=code("augment_pairs.py"),
    output:
        manifest="results/shards/pairs/{augmented}/0/manifest.json",
        stats="results/pairs/{augmented}/stats.json",
        rejects="results/pairs/{augmented}/rejects.parquet",
    log:
        "results/logs/augment_pairs/{augmented}.log",
    benchmark:
        "results/usage/augment_pairs/{augmented}.tsv"
    conda:
        "../envs/rewardline.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        settings=settings(lambda w: stage_settings.augment_settings(CONFIG, w.augmented)),
    message:
        "Augmenting {wildcards.augmented}"
    shell:
        program("augment_pairs.py") + " --name {wildcards.augmented} --settings {params.settings:q}"
        " --pairs $(dirname {input.pairs:q}) --prompts $(dirname {input.prompts:q})"
        " --shard $(dirname {output.manifest:q}) --output $(dirname {output.stats:q}) --log {log}"
