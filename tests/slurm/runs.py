"""The project on a cluster of the tests, and what its results have in common with those of another run."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from project import ENVIRONMENT, Project
from slurm.cluster import Cluster

SNAKEMAKE = [sys.executable, str(Path(__file__).with_name("impatient.py")), "--workflow-profile", "profiles/slurm"]
PROFILE_THREADS = ["tokenize_shard=2", "train=2", "evaluate=2"]
"""The threads of profiles/slurm, for a local run that adds in the same order."""
TINY: dict[str, Any] = {
    "datasets": {"demo": {"demo": {"pairs": 400, "seed": 1}, "shards": 2}},
    "mixtures": {"demo": {"shards": 2}},
    "models": {"tiny": {"init": {"config": {"hidden_size": 64, "intermediate_size": 128}}}},
    "runs": {"demo": {"seeds": [0], "training": {"epochs": 1, "checkpoint_every": 1}}},
}
CONTENT = {".parquet", ".arrow", ".safetensors", ".tsv"}


class ClusterProject(Project):
    """A project whose snakemake runs on the login host of a cluster, with the profile as the repository has it."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        super().__init__(folder)
        self.cluster = cluster

    def run(self, *arguments: str, check: bool = True, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """`snakemake --workflow-profile profiles/slurm ARGUMENTS`, with stdout and stderr together."""
        command = [*SNAKEMAKE, *arguments]
        done = self.cluster.run(*command, folder=self.folder, env=ENVIRONMENT, check=False, timeout=timeout)
        assert not check or done.returncode == 0, done.stdout + self.slurm_logs()
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The same in the background, with what it says in a file `said`."""
        with (self.folder / "said").open("ab") as said:
            return self.cluster.start(
                *SNAKEMAKE, *arguments, folder=self.folder, env=ENVIRONMENT, stdout=said, stderr=subprocess.STDOUT
            )

    def slurm_logs(self) -> str:
        """What Slurm kept of failed jobs, and the rules' own logs."""
        paths = sorted(self.folder.glob("results/logs/**/*.log"))
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def contents(results: Path) -> dict[str, str]:
    """The hashes of all data, weights, scores and tables in a folder of results, by path."""
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("*"))
        if path.suffix in CONTENT and path.is_file() and "checkpoints" not in path.parts
    }
