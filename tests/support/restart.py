"""Stages that are started again although nothing has changed."""

import subprocess
import sys

from support.paths import ROOT


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
