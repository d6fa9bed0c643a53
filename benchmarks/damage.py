"""Whether damage to any file that a stage reads is noticed.

    python benchmarks/damage.py --changes 1000                      in a new copy of the project, after its default run
    python benchmarks/damage.py --changes 1000 --project FOLDER     in a copy whose default run has ended

Each time, one file of the results is damaged (a byte changed, the end cut off, the file lost, or the content of another
file in its place), and a program that reads it is called, in this process; or a program that has written it is started
again, as Snakemake starts it after an edit. Damage is noticed if a message names the file and what to do, or if the
file is made again. The script prints a Markdown table of outcomes, and what was not noticed. Afterwards, the project is
as before.
"""

import argparse
import logging
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from support.damage import Change, Damage, Kind, is_noticed
from support.project import Project


def outcome_of(change: Change, outcome: str) -> str:
    """The column of the table that an outcome belongs to."""
    if not is_noticed(change, outcome):
        return "not noticed"
    return "made again" if outcome in ("equal", "repeated") else "named"


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
    with tempfile.TemporaryDirectory() as scratch:
        project = Project.at(args.project.resolve()) if args.project else Project(Path(scratch) / "project")
        project.run("--cores", "all")
        os.chdir(project.folder)
        damage = Damage(project, Path(scratch))
        logging.disable()
        for _ in range(args.changes):
            kind = chance.choices(get_args(Kind), (7, 1, 1, 1))[0]
            change, outcome = damage.change(chance, kind, again=chance.random() < 0.25)
            counts[change.kind, outcome_of(change, outcome)] += 1
            if not is_noticed(change, outcome):
                failures.append(f"{change}: {outcome}")
        damage.restore()
    columns = ("named", "made again", "not noticed")
    print("| change | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for kind in get_args(Kind):
        print(f"| {kind} | " + " | ".join(str(counts[kind, column]) for column in columns) + " |")
    print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
