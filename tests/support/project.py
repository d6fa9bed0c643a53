"""A copy of the project in a folder of its own, and what snakemake would do or does in it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from support.paths import ROOT
from support.processes import forks, jobs

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTEST"))},
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "HF_HUB_OFFLINE": "1",
}


class Project:
    """A checkout as a person has it after cloning: the files that git knows or would add, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listing = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
        for name in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The project that is in a folder already."""
        project = cls.__new__(cls)
        project.folder = folder
        return project

    def run(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """`snakemake ARGUMENTS`, with stdout and stderr together; its jobs are forks too."""
        command = ["snakemake", *arguments]
        done = forks.run(command, cwd=self.folder, env=ENVIRONMENT, timeout=timeout, python=jobs.python())
        assert not check or done.returncode == 0, done.stdout
        return done

    def start(self, *arguments: str) -> forks.Program:
        """`snakemake ARGUMENTS` in the background, in a process group of its own."""
        command = ["snakemake", *arguments]
        silent = Path(os.devnull)
        return forks.Fork(command, cwd=self.folder, env=ENVIRONMENT, output=silent, session=True, python=jobs.python())

    def overlay(self, config: dict[str, Any], name: str = "overlay.yaml") -> Path:
        """Write a configuration file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    def planned(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a dry-run announces; none says that there is nothing to be done."""
        text = self.run("--cores", "2", "--dry-run", *arguments).stdout
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total ", text, re.DOTALL | re.MULTILINE)
        if table is None:
            assert "Nothing to be done" in text, text
            return {}
        jobs = dict(line.split() for line in table.group(1).splitlines())
        return {rule: int(count) for rule, count in jobs.items() if rule != "all"}

    def pretend(self, *arguments: str) -> None:
        """Have every output stand there, recorded as made by the present rules, without running a stage."""
        text = self.run("--cores", "2", "--detailed-summary", *arguments).stdout
        for line in text.splitlines()[1:]:
            name = line.split("\t")[0]
            if not name.startswith("results/"):
                continue
            path = self.folder / name
            if path.name in ("train", "eval") and path.parent.parent.name == "pairs":
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        self.run("--cores", "2", "--touch", "--forceall", *arguments)
        assert self.planned(*arguments) == {}


def small(name: str = "small", **training: Any) -> dict[str, Any]:
    """A configuration whose run takes seconds once torch is imported."""
    tokenizer = {"mixture": name, "vocab_size": 400}
    model = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    init = {"config": {**model, "num_attention_heads": 2}, "tokenizer": tokenizer}
    defaults = {"learning_rate": 1e-2, "pairs_per_step": 8, "max_steps": 30, "checkpoint_every": 5, "eval_every": 10}
    return {
        "datasets": {name: {"demo": {"pairs": 200, "seed": 3}}},
        "mixtures": {name: {"datasets": {name: 1.0}, "eval_fraction": 0.2}},
        "models": {name: {"max_length": 160, "init": init}},
        "runs": {name: {"mixture": name, "model": name, "training": {**defaults, **training}}},
    }


def sweep(grid: dict[str, Any]) -> dict[str, Any]:
    """A configuration with a sweep `s` of two rates and two losses, changed by `grid`, a benchmark and a choice."""
    config = small(max_steps=12, checkpoint_every=2, eval_every=0, clip=0)
    run = config["runs"].pop("small")
    values = {"training.learning_rate": [1e-3, 1e-2], "training.loss": ["pairwise", "kwise"]}
    config["benchmarks"] = {"p": {"probes": {"mixture": "small", "prompts": 10}}}
    config["runs"]["s"] = {**run, "benchmarks": ["p"], "grid": {**values, **grid}}
    config["select"] = {"from": "s", "as": "best"}
    return config


def sweep_results(project: Project) -> dict[str, bytes]:
    """The content of files that must not depend on how often a sweep was interrupted, by path."""
    results = project.folder / "results"
    patterns = ("rungs/*/*.json", "models/*/model.safetensors", "models/*/selection.json", "evals/*/*/*")
    files = [path for pattern in patterns for path in sorted(results.glob(pattern))]
    files += [results / name for name in ("summary.tsv", "comparisons.json", "suspects.parquet")]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def wait_for(project: Project, pattern: str, process: forks.Program, seconds: float = 600.0) -> None:
    """Wait until a file of the results matches; fail if the process ends before, or after some time."""
    deadline = time.monotonic() + seconds
    while not any((project.folder / "results").glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, f"{pattern} has not appeared"
        time.sleep(0.2)


def restart(program: str, *arguments: object) -> None:
    """Run a program of scripts/ that finds its work done: an import of torch or transformers fails."""
    code = (
        "import sys; sys.path.insert(0, 'scripts'); sys.modules.update(torch=None, transformers=None);"
        f"import {program}; sys.exit({program}.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is up to date" in done.stderr
