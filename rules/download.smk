rule download:
    input:
        files=lambda wildcards: source_files(wildcards.dataset),
        code=code("download.py"),
    output:
        manifest="results/data/{dataset}/manifest.json",
    log:
        "results/logs/download/{dataset}.log",
    conda:
        "../envs/rewardline.yaml"
    params:
        settings=settings(download_settings, "dataset"),
    message:
        "Downloading {wildcards.dataset}"
    shell:
        program("download.py") + " --name {wildcards.dataset} --settings {params.settings:q}"
        " --output results/data/{wildcards.dataset} --log {log}"
