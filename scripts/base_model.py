"""Prepare a base model: from the hub, a local folder, a GGUF file, or new with a tokenizer trained on a mixture.

    python scripts/base_model.py --settings '{"path": "facebook/opt-350m", "revision": "main"}' \\
        --output results/base/opt-350m

Writes a Hugging Face folder with weights in safetensors, a fast tokenizer and `manifest.json`. Nothing is done if
settings, inputs and code are unchanged.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rewardline.core.artifacts import artifact_key, input_hashes, make_folder
from rewardline.core.cli import StageParser, run
from rewardline.model.settings import BaseModelStageSettings
from rewardline.tokens.settings import tokenizer_files

if TYPE_CHECKING:
    from rewardline.tokens.base_manifest import BaseManifest

MODULE = Path(__file__).parent / "rewardline" / "model" / "base.py"
PACKAGES = ("safetensors", "tokenizers", "torch", "transformers")


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, BaseModelStageSettings)
    options.add_argument("--pairs", type=Path, help="folder of pairs whose text a new tokenizer is trained on")
    options.add_argument("--output", required=True, type=Path, help="folder to write the model to")
    args = options.start(argv)
    inputs: dict[str, JsonValue] = {"files": _local_files(args.settings)}
    if args.pairs is not None:
        inputs["pairs"] = input_hashes(sorted(args.pairs.glob("part-*.parquet")))

    def build(out: Path) -> "BaseManifest":
        from rewardline.model.base import prepare  # takes seconds

        return prepare(args.settings, args.pairs, out)

    make_folder(args.output, artifact_key(args.settings, inputs, MODULE, PACKAGES), build)
    return 0


def _local_files(settings: BaseModelStageSettings) -> list[JsonValue]:
    """Name, size and time of the last change of each local file: hashes of weights would take too long."""
    path = Path(settings.path or (settings.gguf.file if settings.gguf else "") or os.devnull)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if settings.chat_template_from and Path(settings.chat_template_from).is_dir():
        files += tokenizer_files(Path(settings.chat_template_from))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


if __name__ == "__main__":
    run(main)
