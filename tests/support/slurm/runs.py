"""The project on a cluster of the tests, and what its results have in common with those of another run."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support.project import ENVIRONMENT, Project
from support.slurm.cluster import TEMPORARY, Cluster
from support.slurm.sandbox import inner_pid

SNAKEMAKE = [sys.executable, str(Path(__file__).with_name("impatient.py")), "--workflow-profile", "profiles/slurm"]
TINY: dict[str, Any] = {
    "datasets": {"demo": {"demo": {"pairs": 400, "seed": 1}, "shards": 2}},
    "mixtures": {"demo": {"shards": 2}},
    "models": {"tiny": {"init": {"config": {"hidden_size": 64, "intermediate_size": 128}}}},
    "runs": {
        "demo": {"seeds": [0], "benchmarks": [], "training": {"epochs": 1, "checkpoint_every": 1, "pairs_per_step": 8}}
    },
}
OVERLAY = "overlay.yaml"
INSIDE = {**ENVIRONMENT, "TMPDIR": TEMPORARY}
CONTENT = {".parquet", ".arrow", ".safetensors", ".tsv"}


class ClusterProject(Project):
    """A project whose snakemake runs on the login host of a cluster, with the profile as the repository has it."""

    def __init__(self, folder: Path, cluster: Cluster, inside: Path | None = None) -> None:
        """Make the project at `folder`, which is called `inside` on the cluster."""
        super().__init__(folder)
        self.cluster, self.inside = cluster, inside or folder
        self.started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """`snakemake --workflow-profile profiles/slurm ARGUMENTS`, with stdout and stderr together."""
        command = [*SNAKEMAKE, *arguments]
        done = self.cluster.run(*command, folder=self.inside, env=INSIDE, check=False, timeout=timeout)
        assert not check or done.returncode == 0, done.stdout + self.slurm_logs()
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same in the background, with what it says in a file `said`."""
        with (self.folder / "said").open("ab") as said:
            process = self.cluster.start(
                *SNAKEMAKE, *arguments, folder=self.inside, env=INSIDE, stdout=said, stderr=subprocess.STDOUT
            )
        self.started.append(process)
        return process

    def close(self) -> None:
        """End what was started and still runs."""
        for process in self.started:
            if process.poll() is None:
                os.kill(inner_pid(process), signal.SIGKILL)
                process.wait()

    def start_from(self, finished: Path, *missing: str) -> None:
        """Have the results of another project's folder, but for some folders of them."""
        for name in ("results", ".snakemake"):
            shutil.copytree(finished / name, self.folder / name, symlinks=True)
        for folder in missing:
            shutil.rmtree(self.folder / "results" / folder)

    def site(self, **changes: Any) -> None:
        """Edit profiles/slurm/config.yaml as a site does."""
        path = self.folder / "profiles" / "slurm" / "config.yaml"
        path.write_text(yaml.safe_dump(_merged(yaml.safe_load(path.read_text()), changes)))

    def training_steps(self) -> int:
        """How many steps unfinished training runs of this project have logged."""
        logs = self.folder.glob("results/checkpoints/*/*/log.jsonl")
        return sum(path.read_text().count('"step"') for path in logs)

    def processes(self, program: str) -> list[int]:
        """The processes of this project that run a stage's program, on all nodes."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if (
                    any(word.endswith(f"scripts/{program}".encode()) for word in words)
                    and (folder / "cwd").readlink() == self.folder
                ):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def freeze(self, program: str = "train.py", steps: int = 3) -> list[int]:
        """Stop the processes of a training, as if a step took very long, when it has logged some steps."""
        self.cluster.wait(f"step {steps}", lambda: self.training_steps() >= steps, seconds=400)
        found = self.processes(program)
        for process in found:
            os.kill(process, signal.SIGSTOP)
        return found

    def said(self) -> str:
        """What snakemake said that was started in the background, and what its jobs left."""
        return (self.folder / "said").read_text() + self.slurm_logs()

    def slurm_logs(self) -> str:
        """What Slurm kept of failed jobs, and the rules' own logs."""
        paths = sorted(self.folder.glob("results/logs/**/*.log"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def contents(results: Path) -> dict[str, str]:
    """The hashes of all data, weights, scores and tables without seconds in a folder of results, by path."""
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.suffix in CONTENT and path.is_file() and not {"checkpoints", "usage", "runs.tsv"} & {*path.parts}
    }
