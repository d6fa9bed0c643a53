"""What the tests run in forks does what the same command does in a process of its own."""

import re
import subprocess
from pathlib import Path

import pytest

from support.project import ENVIRONMENT, Project, small


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ("--dry-run", "--printshellcmds")),
        (0, ("results/shards/prompts/small/manifest.json", "--configfile", "small.yaml")),
        (1, ("--configfile", "wrong.yaml")),
        (1, ("results/of/no/rule",)),
    ],
)
def test_a_fork_of_snakemake_is_as_a_process_of_its_own(tmp_path: Path, code: int, arguments: tuple[str, ...]) -> None:
    found = []
    for name in ("alone", "fork"):
        project = Project(tmp_path / name / "project")
        project.overlay(small(), "small.yaml")
        project.overlay({"runs": {"demo": {"training": {"learnin_rate": 1}}}}, "wrong.yaml")
        command = ["snakemake", "--cores", "1", *arguments]
        if name == "alone":
            out, err = subprocess.PIPE, subprocess.STDOUT
            done = subprocess.run(command, cwd=project.folder, env=ENVIRONMENT, stdout=out, stderr=err, text=True)
        else:
            done = project.run(*command[1:], check=False)
        text = done.stdout.replace(str(tmp_path / name), "")
        text = re.sub(r"^(\d\d:\d\d:\d\d +\d+/\d+) .*? s  |; [^;\n]* left$", r"\1", text, flags=re.MULTILINE)
        said = re.sub(r"\d+", "0", text).splitlines()  # without times
        results = project.folder / "results"
        paths = [path for folder in ("data", "shards") for path in (results / folder).rglob("*") if path.is_file()]
        files = {path.relative_to(results): path.read_bytes() for path in paths if path.suffix != ".lock"}
        found.append((done.returncode, sorted(said), files))
    assert found[0] == found[1] and found[0][0] == code
