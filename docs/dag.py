"""Keep generated parts of README.md current: the picture of the rules, and the final summary of the default run.

python docs/dag.py            say whether README.md is current
python docs/dag.py --write    write the picture, and the final summary if results/ holds the default run
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def rule_graph() -> str:
    """The rules of the default run as Mermaid text, in a stable order."""
    command = ["snakemake", "--rulegraph", "mermaid-js", "--forceall"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = text[text.index("flowchart") :].splitlines()
    names = dict(line.strip().rstrip("]").split("[", 1) for line in lines if "[" in line and not line.startswith("---"))
    arrows = [line.strip().split(" --> ") for line in lines if "-->" in line]
    edges = {(names[one], names[other]) for one, other in arrows}
    used = {one for one, other in edges if other != "all"}
    # `all` asks for every artefact; what others are made of needs no arrow of its own to it.
    drawn = sorted(f"    {one} --> {other}" for one, other in edges if other != "all" or one not in used)
    return "\n".join(["flowchart LR", *drawn])


def between(text: str, begin: str, end: str) -> tuple[int, int]:
    """Where in `text` the part between two marks stands."""
    start = text.index(begin) + len(begin)
    return start, text.index(end, start)


def main(argv: list[str] | None = None) -> int:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    text = README.read_text(encoding="utf-8")
    start, end = between(text, "```mermaid\n", "\n```")
    current = rule_graph()
    if args.write:
        README.write_text(text[:start] + current + text[end:], encoding="utf-8")
        return 0
    if text[start:end] != current:
        print("README.md: the picture of the rules is out of date; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
