"""Prepare a base model: from the hub, a local folder, a GGUF file, or new with a tokenizer trained on a mixture.

    python scripts/base_model.py --settings '{"path": "facebook/opt-350m", "revision": "main"}' \\
        --output results/base/opt-350m

Leaves a Hugging Face folder with weights in safetensors, a fast tokenizer and `manifest.json`.
"""

from pathlib import Path

from rewardline.core.cli import StageParser, run
from rewardline.core.files import atomic_folder, write_json
from rewardline.model.base import prepare
from rewardline.model.settings import BaseModelStageSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, BaseModelStageSettings)
    options.add_argument("--pairs", type=Path, help="folder of pairs whose text a tokenizer of its own is trained on")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the model in")
    args = options.start(argv)
    with atomic_folder(args.output) as out:
        manifest = prepare(args.settings, args.pairs, out)
        write_json(out / "manifest.json", manifest)
    return 0


if __name__ == "__main__":
    run(main)
