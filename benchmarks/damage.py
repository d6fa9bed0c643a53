"""Whether damage to any file that a stage reads is noticed.

    python benchmarks/damage.py --changes 1000                      in a new copy of the project
    python benchmarks/damage.py --changes 1000 --project FOLDER     in FOLDER, made by the first call

The project has small runs on data of two origins, one a web server, with an audit of labels, a scoring job, and an
evaluation in two jobs. Each time, one file of the results is damaged (a byte changed, the end cut off, the file lost,
or the content of another file in its place), and a program that reads it is called, in this process; or a program that
has written it is started again, as Snakemake starts it after an edit. Damage is noticed if a message names the file and
what to do, or if the file is made again; it is without effect if the program writes what it writes without the damage.
The script prints a Markdown table of outcomes, and what was not noticed. Afterwards, the project is as before.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.damage import Change, Damage, Kind, is_noticed
from support.file_server import serving
from support.project import ENVIRONMENT, Project, small

CONFIG = "damage.yaml"
PAIRS = "".join(
    json.dumps({"prompt": f"Which is the number after {k}?", "chosen": f"It is {k + 1}.", "rejected": "None."}) + "\n"
    for k in range(80)
).encode()


def outcome_of(change: Change, outcome: str) -> str:
    """The column of the table that an outcome belongs to."""
    if not is_noticed(change, outcome):
        return "not noticed"
    if outcome == "unread":
        return "without effect"
    return "made again" if outcome in ("equal", "repeated") else "named"


def prepared(project: Project, address: str) -> Path:
    """Write a configuration with artifacts of all kinds, and the rows that it names; `address`: of the web server."""
    rows = [{"prompt": f"Add {k} and {k + 1}.", "answers": [str(2 * k + 1), "No.", f"{k}"]} for k in range(600)]
    (project.folder / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = small(max_steps=10, eval_every=0)
    run = {**config["runs"]["small"], "benchmarks": ["flaws"]}
    config["datasets"]["web"] = {"files": [f"{address}/pairs.jsonl"]}
    config["mixtures"] = {
        "small": {"datasets": {"small": 1.0, "web": 1.0}, "eval_fraction": 0.2},
        "clean": {"audit": "check"},
    }
    config["benchmarks"] = {"flaws": {"probes": {"mixture": "small", "prompts": 20}}}
    config["audits"] = {"check": {"mixture": "small", "run": "small", "folds": 2}}
    config["runs"] = {"small": {**run, "seeds": [0, 1]}, "clean": {**run, "mixture": "clean"}}
    config["scoring"] = {"answers": {"files": ["answers.jsonl"], "run": "clean", "shards": 2, "pairs": {}}}
    config["evaluation"] = {"shards": {"eval": 2}}
    return project.overlay(config, CONFIG)


def main() -> int:
    """Damage files one by one; 1 if anything is not noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    counts: Counter[tuple[str, str]] = Counter()
    failures = []
    folder, port = args.project and args.project.resolve(), 0
    if folder and (folder / CONFIG).is_file():
        (address,) = yaml.safe_load((folder / CONFIG).read_text())["datasets"]["web"]["files"]
        port = urlsplit(address).port or 0
    with tempfile.TemporaryDirectory() as scratch, serving(port) as server:
        server.files["/pairs.jsonl"] = PAIRS
        ENVIRONMENT["HF_HUB_OFFLINE"] = "0"  # the web server may be asked
        project = Project.at(folder) if port else Project(folder or Path(scratch) / "project")
        arguments = ["--configfile", str(prepared(project, server.address))]
        project.run("--cores", "all", *arguments)
        os.chdir(project.folder)
        damage = Damage(project, Path(scratch), *arguments)
        logging.disable()
        for _ in range(args.changes):
            kind = chance.choices(get_args(Kind), (7, 1, 1, 1))[0]
            change, outcome = damage.change(chance, kind, again=chance.random() < 0.25)
            counts[change.kind, outcome_of(change, outcome)] += 1
            if not is_noticed(change, outcome):
                failures.append(f"{change}: {outcome}")
        damage.restore()
    columns = ("named", "made again", "without effect", "not noticed")
    print("| change | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for kind in get_args(Kind):
        print(f"| {kind} | " + " | ".join(str(counts[kind, column]) for column in columns) + " |")
    print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
