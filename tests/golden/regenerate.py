"""Compute the golden losses anew, after a change that is meant to change numbers.

    python tests/golden/regenerate.py

The difference to losses.json says what has changed: look at it, and say in the commit why.
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
    os.environ["DS_ACCELERATOR"] = "cpu"
    from support import golden_losses

    found = golden_losses.compute()
    lines = [f"{json.dumps(name)}: {json.dumps([round(loss, 8) for loss in losses])}" for name, losses in found.items()]
    golden_losses.FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{golden_losses.FILE}: {len(lines)} training runs")


if __name__ == "__main__":
    main()
