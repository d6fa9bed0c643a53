"""Keep the picture of the rules in docs/reruns.md current.

python docs/dag.py            fail if it is not
python docs/dag.py --write    write it
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RERUNS = ROOT / "docs" / "reruns.md"


def rule_graph() -> str:
    """The rules of the default run as a Mermaid flowchart, sorted."""
    command = ["snakemake", "--rulegraph", "mermaid-js", "--forceall"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = text[text.index("flowchart") :].splitlines()
    names = dict(line.strip().rstrip("]").split("[", 1) for line in lines if "[" in line and not line.startswith("---"))
    arrows = [line.strip().split(" --> ") for line in lines if "-->" in line]
    edges = {(names[source], names[target]) for source, target in arrows}
    inner = {source for source, target in edges if target != "all"}
    # `all` requests every artifact; only the last rules need an arrow to it.
    drawn = sorted(f"    {source} --> {target}" for source, target in edges if target != "all" or source not in inner)
    return "\n".join(["flowchart LR", *drawn])


def main() -> int:
    """Check the picture, or write it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="write the picture instead of checking it")
    write = options.parse_args().write
    text = RERUNS.read_text(encoding="utf-8")
    before, _, rest = text.partition("```mermaid\n")
    _, _, after = rest.partition("\n```")
    current = f"{before}```mermaid\n{rule_graph()}\n```{after}"
    if write:
        RERUNS.write_text(current, encoding="utf-8")
    elif text != current:
        print("docs/reruns.md: the picture of the rules is out of date; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
