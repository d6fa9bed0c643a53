"""Another workflow imports this one, from wherever snakemake finds it, and gives its results a place of their own."""

import json
import re
import subprocess
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from support.paths import ROOT
from support.project import ENVIRONMENT, Project, small

OUTER = """
configfile: "config.yaml"

module rm:
    snakefile: {source}
    prefix: "judge"
    config: config["judge"]

use rule * from rm as rm_*

rule answer:
    input: "judge/results/summary.tsv"
    output: "answer.txt"
    shell: "cp {{input}} {{output}}"
"""
CHEAP = ("judge/results/data/small/manifest.json", "judge/results/data/own/manifest.json")
"""Targets of short jobs: the demo, which reads templates of the library, and a file of the other workflow."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project where it was published: a clone, and as a git repository."""
    folder = tmp_path_factory.mktemp("published") / "owner" / "rewardline"
    Project(folder)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*author, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    """A web server of files without a log."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def local(sources: Path) -> Iterator[str]:
    yield repr(str(sources / "workflow" / "Snakefile"))


@contextmanager
def web(sources: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(sources))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield repr(f"http://127.0.0.1:{server.server_port}/workflow/Snakefile")
        server.shutdown()


@contextmanager
def github(sources: Path) -> Iterator[str]:
    here = f'[url "{sources.parents[1]}/"]\n    insteadOf = https://github.com/\n'
    (sources.parents[1] / "gitconfig").write_text(here)
    yield "github('owner/rewardline', path='workflow/Snakefile', branch='main')"


def outer(folder: Path, source: str) -> Project:
    """Another workflow with data of its own, which imports this one."""
    folder.mkdir()
    rows = [{"prompt": f"What is {k} and 7?", "chosen": f"It is {k + 7}.", "rejected": "No."} for k in range(40)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = small()
    config["datasets"]["own"] = {"files": ["own.jsonl"]}
    config["mixtures"]["small"]["datasets"]["own"] = 1.0
    (folder / "config.yaml").write_text(yaml.safe_dump({"judge": config, "answer": 42}))
    (folder / "Snakefile").write_text(OUTER.format(source=source))
    return Project.at(folder)


@pytest.mark.parametrize("place", [local, web, github])
def test_results_stand_under_the_prefix_and_nothing_else_is_moved(
    place: Callable[[Path], AbstractContextManager[str]],
    sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_GLOBAL", str(sources.parents[1] / "gitconfig"))
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    with place(sources) as source:
        project = outer(tmp_path / "outer", source)
        made = {"rm_generate_demo", "rm_download_file", "rm_download"} if place is web else set()
        if made:
            project.run("--cores", "2", *CHEAP)
            assert json.loads((project.folder / CHEAP[1]).read_text())["rows"] == 40
        plan = project.run("--cores", "2", "--dry-run", "--printshellcmds").stdout
        jobs = set(re.findall(r"^(\w+) +\d+$", plan, re.MULTILINE))
        assert "answer" in jobs, "the other workflow keeps its own target"
        assert {f"rm_{rule}" for rule in ("convert_rows", "tokenize", "train", "evaluate", "summarize")} < jobs
        assert not made & jobs, "what it imports has a place that stays the same"
        commands = [line for line in plan.splitlines() if ".py" in line and "--log" in line]
        assert len(commands) > 8
        assert not [line for line in commands if re.search(r"(?<![\w/])results/", line)]
    if place is not web:
        return
    own = {"Snakefile", "config.yaml", "own.jsonl"}
    assert {path.name for path in project.folder.iterdir()} == {*own, ".snakemake", "judge"}
    assert {path.name for path in (project.folder / "judge").iterdir()} == {"results"}


def test_a_prefix_that_a_shell_would_split_is_one_message(sources: Path, tmp_path: Path) -> None:
    module = f"module rm:\n    snakefile: {str(sources / 'Snakefile')!r}\n    prefix: 'my work'\n\n"
    (tmp_path / "Snakefile").write_text(f"{module}use rule * from rm as rm_*\n")
    done = Project.at(tmp_path).run("--cores", "1", "--dry-run", check=False)
    assert done.returncode == 1 and "prefix: my work/results cannot stand in a command; leave out" in done.stdout


def test_the_place_of_the_catalog_and_another_folder_run_the_same_jobs(sources: Path, tmp_path: Path) -> None:
    project = Project.at(sources)
    command = ("--cores", "2", "--dry-run", "--directory", str(tmp_path))
    text = project.run(*command).stdout
    assert f"there is no {tmp_path}/config/config.yaml, so the demo is run: {sources}/config/config.yaml" in text
    assert "--configfile" in text
    catalog = project.run("--cores", "2", "--dry-run", "--snakefile", "workflow/Snakefile").stdout
    jobs = text.splitlines()[text.splitlines().index("Job stats:") :]
    assert len(jobs) > 40 and Counter(jobs) <= Counter(catalog.splitlines())
    assert "there is no" not in catalog
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(small()))
    assert "there is no" not in project.run(*command, "--configfile", str(tmp_path / "own.yaml")).stdout
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(small()))
    assert "there is no" not in project.run(*command).stdout


def test_as_snakedeploy_deploys_it_all_is_made_without_a_target(sources: Path, tmp_path: Path) -> None:
    module = f"module rewardline:\n    snakefile: {str(sources / 'workflow' / 'Snakefile')!r}\n    config: config\n"
    for name, text in {
        "workflow/Snakefile": f'configfile: "config/config.yaml"\n\n{module}\nuse rule * from rewardline\n',
        "config/config.yaml": yaml.safe_dump(small()),
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert Project.at(tmp_path).planned().keys() >= {"train", "evaluate", "plot"}


def test_the_catalog_and_pixi_install_the_tested_versions() -> None:
    catalog = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalog["usage"]["software-stack-deployment"]["conda"] is True
    pixi = tomllib.loads((ROOT / "pixi.toml").read_text())
    assert "envs/requirements.txt" in pixi["tasks"]["install"]["cmd"]
    assert pixi["tasks"]["rewardline"]["depends-on"] == ["install"]


def test_two_modules_of_one_workflow_have_results_and_settings_of_their_own(sources: Path, tmp_path: Path) -> None:
    """Their configurations are in the module statements alone, and the workflow runs in another folder."""
    one, two = small("one"), small("two")
    grid = {"training.learning_rate": [1e-3, 1e-2], "halving": {"factor": 2, "min_steps": 5}}
    two["runs"]["two"]["grid"] = grid
    two["select"] = {"from": "two", "as": "best"}
    text = ""
    for name, config in (("a", one), ("b", two)):
        text += f"module {name}:\n    snakefile: {str(sources / 'Snakefile')!r}\n    prefix: 'place/{name}'\n"
        text += f"    config: {config!r}\n\nuse rule * from {name} as {name}_*\n\n"
    (tmp_path / "Snakefile").write_text(text + "rule both:\n    input: rules.a_all.input, rules.b_all.input\n")
    (tmp_path / "elsewhere").mkdir()
    project = Project.at(tmp_path)
    plan = project.run(
        *("--cores", "2", "--dry-run", "--printshellcmds", "--directory", str(tmp_path / "elsewhere"), "both")
    ).stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE))
    assert (jobs["a_train"], jobs["b_train"], jobs["b_train_rung"], jobs["b_halve"]) == ("1", "2", "2", "1")
    assert "a_train_rung" not in jobs and jobs["b_select_model"] == "1"
    assert "there is no" not in plan, "each has a configuration"
    for name, other in ("ab", "ba"):
        commands = [line for line in plan.splitlines() if f"place/{name}/results" in line and "--log" in line]
        assert len(commands) > 8 and not [line for line in commands if f"place/{other}/results" in line]
    assert not re.search(r"(?<![\w/])results/", "".join(line for line in plan.splitlines() if "--log" in line))
