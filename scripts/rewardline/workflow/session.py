"""What a snakemake process needs of the machine that it runs on."""

import os
import sys
from pathlib import Path


def use_own_python() -> None:
    """Have stages run in the environment that this process runs in; what snakemake activates itself comes before."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
