"""What a person meets who writes a configuration: documentation, examples, and messages about mistakes."""

import re
import subprocess
import sys
from math import prod
from operator import mul
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rewardline.data.formats.registry import FORMATS, GROUPED
from rewardline.model.settings import GgufSettings
from rewardline.workflow.config import DatasetEntry, ModelEntry

from support.paths import ROOT
from support.project import ENVIRONMENT, Project

EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("config") / "project")


@pytest.mark.parametrize("script", ["configuration.py", "dag.py"])
def test_generated_documentation_is_current(project: Project, script: str) -> None:
    command = [sys.executable, str(project.folder / "docs" / script)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_accepts_what_the_pipeline_accepts() -> None:
    validator = jsonschema.Draft202012Validator(yaml.safe_load((ROOT / "config" / "schema.yaml").read_text()))
    default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    validator.validate(default)
    for example in EXAMPLES:
        validator.validate({**default, **yaml.safe_load(example.read_text())})
    default["runs"]["demo"]["training"]["learning_rate"] = 0
    assert not validator.is_valid(default)


def test_every_format_is_explained() -> None:
    text = (ROOT / "config" / "README.md").read_text()
    assert all(f"| `{name}` |" in text for name in (*FORMATS, *GROUPED))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_passes_a_dry_run(project: Project, example: Path) -> None:
    jobs = project.planned("--configfile", str(example.relative_to(ROOT)))
    assert {"train", "evaluate", "summarize", "plot"} <= set(jobs)
    written = yaml.safe_load(example.read_text())
    selected = [entry for entry in written["runs"].values() if "model" in entry]  # what is trained
    seeds = [len(entry.get("seeds", [0])) for entry in selected]
    grids = [entry.get("grid", {}).values() for entry in selected]
    cells = [prod(len(values) for values in grid if isinstance(values, list)) for grid in grids]
    folds = sum(audit["folds"] for audit in written.get("audits", {}).values())
    trained = sum(map(mul, seeds, cells)) + folds
    assert jobs["train"] == trained, "only the runs that the example names"


def test_the_first_run_of_the_readme_is_what_it_says(project: Project) -> None:
    text = (ROOT / "README.md").read_text()
    config = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    example = str(ROOT / "config" / "examples" / "own-data.jsonl")
    config["datasets"]["mine"]["files"] = [example]
    plan = project.run("--cores", "2", "-n", "--configfile", str(project.overlay(config, "my.yaml"))).stdout
    (runs,) = re.findall(r"^train +(\d+)$", plan, re.MULTILINE)[:1]
    assert f"\n{runs} runs such as `" in text
    assert f"Training {text.partition('runs such as `')[2].partition('`')[0]}\n" in plan
    assert "Choosing best" in plan


def test_documents_refer_to_files_that_are_there() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} refers to {target}"


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({"runs": {"demo": {"training": {"learnin_rate": 1}}}}, ["runs.demo.training.learnin_rate", "learning_rate"]),
        ({"runs": {"demo": {"training": {"schedule": "cos"}}}}, ["runs.demo.training.schedule", "'cos'", "cosine"]),
        ({"run": {}}, ["run: unknown key", "runs"]),
        (
            {"datasets": {"x": {"files": ["no/*.jsonl"]}}, "mixtures": {"demo": {"datasets": {"x": 1}}}},
            ["datasets.x.files: no/*.jsonl matches no file"],
        ),
        (
            {"datasets": {"x": {"files": ["no.jsonl"]}}, "mixtures": {"demo": {"datasets": {"x": 1}}}},
            ["datasets.x.files: no.jsonl does not exist"],
        ),
        ({"models": {"tiny": {"init": None, "gguf": {"file": "no.gguf"}}}}, ["models.tiny", "no.gguf does not exist"]),
        ({"datasets": {"demo": {"format": "jsonl"}}}, ["datasets.demo", "'jsonl'", "transcript"]),
        (
            {"datasets": {"demo": {"format": "pairs", "fields": {"promt": "q"}}}},
            ["datasets.demo", "promt", "prompt"],
        ),
    ],
)
def test_mistake_is_one_message_without_a_traceback(
    project: Project, overlay: dict[str, Any], expected: list[str]
) -> None:
    done = project.run("--cores", "1", "--configfile", str(project.overlay(overlay)), check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    for part in expected:
        assert part in done.stdout
    assert not (project.folder / "results" / "summary.tsv").exists()


@pytest.mark.parametrize(("where", "gpus"), [(["--workflow-profile", "profiles/slurm"], 0), (["--cores", "2"], 2)])
def test_gpus_of_a_login_host_are_not_asked_of_its_cluster(
    project: Project, monkeypatch: pytest.MonkeyPatch, where: list[str], gpus: int
) -> None:
    monkeypatch.delitem(ENVIRONMENT, "CUDA_VISIBLE_DEVICES", raising=False)
    module = project.folder / "scripts" / "rewardline" / "core" / "gpus.py"
    module.write_text(module.read_text().replace('Path("/dev")', 'Path(".")'))
    for name in ("nvidia0", "nvidia1"):
        (project.folder / name).touch()
    text = project.run("--dry-run", "--printshellcmds", *where, "results/models/demo-seed0/run.json").stdout
    assert f"--gpus $(({gpus} / 1))" in text


def test_a_file_without_runs_is_said_to_mean_those_of_the_default_in_any_folder(
    project: Project, tmp_path: Path
) -> None:
    overlay = project.overlay({"mixtures": {"demo": {"seed": 5}}}, "seed.yaml")
    done = project.run("--dry-run", "--cores", "1", "--directory", str(tmp_path), "--configfile", overlay.name)
    assert "seed.yaml names no `runs:`, so the runs of config/config.yaml are meant: demo" in done.stdout
    assert re.search(r"^train +2$", done.stdout, re.MULTILINE)


def test_home_folders_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = DatasetEntry.model_validate({"files": ["~/a.jsonl", "data/~b.jsonl"]})
    assert entry.files == [f"{tmp_path}/a.jsonl", "data/~b.jsonl"]
    assert ModelEntry.model_validate({"path": "~/model"}).path == f"{tmp_path}/model"
    assert GgufSettings.model_validate({"file": "~/m.gguf"}).file == f"{tmp_path}/m.gguf"
    assert ModelEntry.model_validate({"path": "~no.such.user/model"}).path == "~no.such.user/model"


def test_conda_environment_and_requirements_agree() -> None:
    lines = (ROOT / "envs" / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    conda = yaml.safe_load((ROOT / "envs" / "rewardline.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": pins}
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)
