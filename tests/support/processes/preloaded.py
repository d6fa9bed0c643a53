"""What the server of `forks` has ready: libraries, and the project's sources as syntax trees.

Nothing of the project itself is imported, since tests run edited copies of it.
"""

import ast
import gc
from importlib import import_module
from typing import Any

from snakemake.executors import touch

from support.paths import SCRIPTS

LIBRARIES = (
    *("snakemake.cli", "snakemake_executor_plugin_slurm", "smart_open", "google.cloud.storage", "docutils.core"),
    *("pydantic", "jinja2", "pyarrow.parquet", "pyarrow.dataset", "pytest"),
    *("torch", "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", "transformers.modeling_utils"),
    *("torch.nn.attention.varlen", "torch.utils.tensorboard", "tensorboard.plugins.histogram.summary"),
    *("transformers.models.llama.modeling_llama", "transformers.tokenization_utils_tokenizers", "matplotlib.figure"),
)
for name in LIBRARIES:
    import_module(name)

python_parse = ast.parse
TREES = {text: python_parse(text) for text in (path.read_text(encoding="utf-8") for path in SCRIPTS.rglob("*.py"))}


def parse(source: Any, *arguments: Any, **options: Any) -> Any:
    """`ast.parse`; each start of the workflow parses all modules, to know of what a stage consists."""
    return TREES.get(source) or python_parse(source, *arguments, **options)


ast.parse = parse
touch.Executor.SLEEPING_TIME = 0.0  # of each job: for file systems whose dates have no fractions of a second
gc.freeze()
