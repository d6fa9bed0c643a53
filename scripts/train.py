"""Train a reward model with DeepSpeed.

    python scripts/train.py --settings @settings.json --tokens results/tokens/main/opt-350m \\
        --base results/base/opt-350m --output results/models/first --checkpoints results/checkpoints/first

Killed at any time, the same command continues from the newest checkpoint. The folder of checkpoints is keyed by
everything that the weights depend on; a training that is already done under its key is not repeated.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from rewardline import distributed
from rewardline.artifacts import (
    canonical,
    digest,
    exclusive,
    file_sha256,
    link_or_copy,
    publish,
    read_json,
    settings_argument,
)
from rewardline.cli import log, parser, run, start_logging
from rewardline.code import program_digest
from rewardline.provenance import versions

Json = dict[str, Any]


def training_key(settings: Json, tokens: Path, base: Path) -> str:
    """A hash of all that the trained weights depend on: settings, tokens, base model, code and versions."""
    found = versions()
    parts = {
        "settings": settings,
        "tokens": file_sha256(tokens / "manifest.json"),
        "base": read_json(base / "manifest.json")["files"],
        "code": program_digest(Path(__file__)),
        "versions": {name: found[name] for name in ("torch", "deepspeed", "transformers")},
    }
    return digest(canonical(parts))


def is_whole(model: Path) -> bool:
    """Whether a finished model stands in a folder, with the weights that it was finished with."""
    if not model.is_dir():
        return False
    if file_sha256(model / "model.safetensors") == read_json(model / "run.json")["weights_sha256"]:
        return True
    log.warning("%s is damaged; training again", model)
    shutil.rmtree(model)
    return False


def finish(folder: Path, output: Path) -> None:
    """Publish the exported model, and delete what is no longer needed: checkpoints, and trainings under other keys."""
    with publish(output) as out:
        for path in sorted((folder / "model").rglob("*")):
            target = out / path.relative_to(folder / "model")
            if path.is_dir():
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(path, target)
    for path in folder.iterdir():
        if path.name != "model":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other)


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--tokens", required=True, type=Path, help="folder of the mixture's tokens")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the model in")
    options.add_argument("--checkpoints", required=True, type=Path, help="folder for checkpoints of this run")
    options.add_argument("--threads", type=int, default=1, help="cores, shared among the processes")
    options.add_argument("--gpus", type=int, default=0, help="GPUs; one process each")
    options.add_argument("--processes", type=int, default=1, help="processes on the CPU")
    arguments = sys.argv[1:] if argv is None else argv
    args = options.parse_args(arguments)
    start_logging(args.log, append=distributed.is_worker())
    settings = settings_argument(args.settings)
    processes = args.gpus or args.processes
    key = training_key(settings, args.tokens, args.base)
    folder = args.checkpoints / key
    if distributed.is_worker() or processes == 1:
        distributed.prepare(args.gpus, max(1, args.threads // processes))
    if distributed.is_worker():
        train_here(settings, args.tokens, args.base, folder, key)
        return 0
    with exclusive(args.checkpoints.with_name(f".{args.checkpoints.name}.lock")):
        folder.mkdir(parents=True, exist_ok=True)
        if is_whole(folder / "model"):
            log.info("this training is already done: its inputs, settings and code have not changed")
        elif processes == 1:
            train_here(settings, args.tokens, args.base, folder, key)
        else:
            distributed.launch(Path(__file__), arguments, processes)
        finish(folder, args.output)
    return 0


def train_here(settings: Json, tokens: Path, base: Path, folder: Path, key: str) -> None:
    """This process's part of the training; imports torch and deepspeed only now, as the environment is set."""
    from rewardline.training import train

    train(settings, tokens, base, folder, key)


if __name__ == "__main__":
    run(main)
