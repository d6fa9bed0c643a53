"""Train a reward model with DeepSpeed.

    python scripts/train.py --settings @settings.json --tokens results/tokens/main/opt-350m \\
        --base results/base/opt-350m --output results/models/first --checkpoints results/checkpoints/first

Killed at any time, the same command continues from the newest checkpoint, also with another number of processes or
another ZeRO stage. The folder of checkpoints is keyed by everything that the weights depend on beyond rounding; a
training that is already done is not repeated. After a SIGTERM it saves a checkpoint and ends with code 75, after a
Ctrl-C with 130 (a second one ends it at once): start it again. With a task on each of several machines under Slurm
(`srun --ntasks-per-node=1`), they train together.
"""

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from rewardline.core import runtime
from rewardline.core.cli import StageParser, log, run, start_logging
from rewardline.core.files import atomic_folder, link_or_copy, read_json
from rewardline.core.gpus import own_gpus
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.locks import exclusive
from rewardline.core.provenance import code_digest
from rewardline.core.versions import versions
from rewardline.training import launcher, loggers, signals
from rewardline.training.settings import TrainSettings

Json = dict[str, Any]
ROUNDING = ("zero_stage", "offload", "gradient_checkpointing", "tokens_per_micro_batch", "batching", "attention")
NO_EFFECT = ("checkpoint_every", "checkpoint_minutes", "loggers")
"""Keys of the training that change no weight but by rounding, and not at all: it goes on when they have changed."""


def without(settings: TrainSettings, keys: tuple[str, ...]) -> Json:
    """The settings, as JSON, without some keys of `training`."""
    return {**settings.as_json(), "training": settings.training.model_dump(mode="json", exclude=set(keys))}


def training_key(settings: Json, tokens: Path, base: Path) -> str:
    """A hash of what the trained weights depend on: settings, tokens, base model, code and versions."""
    found = versions()
    relevant = ["torch", "deepspeed", "transformers", *(["peft"] if settings["training"]["lora"] else [])]
    parts = {
        "settings": settings,
        "tokens": file_sha256(tokens / "manifest.json"),
        "base": read_json(base / "manifest.json")["files"],
        "code": code_digest(Path(__file__)),
        "versions": {name: found[name] for name in relevant},
    }
    return digest(canonical(parts))


def is_whole(model: Path, key: str) -> bool:
    """Whether a finished model stands in a folder, trained under `key`, with the weights that it was finished with."""
    about, weights = model / "run.json", model / "model.safetensors"
    if about.is_file() and weights.is_file():
        facts = read_json(about)
        if facts["key"] != key:
            log.info("%s was trained with other settings; training again", model)
        elif file_sha256(weights) == facts["weights_sha256"]:
            return True
        else:
            log.warning("%s is damaged; training again", model)
    elif model.exists():
        log.warning("%s is not whole; training again", model)
    if model.exists():
        about.unlink(missing_ok=True)  # first: without it, what a kill leaves of the rest is no model
        shutil.rmtree(model)
    return False


def finish(folder: Path, output: Path) -> None:
    """Publish the exported model, and delete what is no longer needed: checkpoints, and trainings under other keys."""
    with atomic_folder(output) as out:
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
    options = StageParser(__doc__, TrainSettings)
    options.add_argument("--tokens", required=True, type=Path, help="folder of the mixture's tokens")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder to leave the model in")
    options.add_argument("--checkpoints", required=True, type=Path, help="folder for checkpoints of this run")
    options.add_argument("--threads", type=int, default=1, help="cores, shared among the processes")
    options.add_argument("--gpus", type=int, default=0, help="GPUs; one process each")
    options.add_argument("--processes", type=int, default=1, help="processes on the CPU")
    arguments = sys.argv[1:] if argv is None else argv
    args = options.parse_args(arguments)
    nodes = launcher.slurm_nodes()
    start_logging(args.log, append=runtime.is_worker() or nodes.index > 0)
    if runtime.rank() > 0:
        log.setLevel(logging.ERROR)  # the first process speaks for all
    signals.leave_on_terminate()
    settings: TrainSettings = args.settings
    processes = args.gpus or args.processes
    key = training_key(without(settings, NO_EFFECT), args.tokens, args.base)
    folder = args.checkpoints / training_key(without(settings, NO_EFFECT + ROUNDING), args.tokens, args.base)
    threads = max(1, args.threads // processes)

    def train_here() -> None:
        runtime.prepare(args.gpus, threads)
        from rewardline.training.train import train  # only now, as torch and deepspeed read the environment

        train(settings, args.tokens, args.base, folder, key)

    def train_together(meeting: launcher.Meeting) -> int:
        with own_gpus(args.gpus):
            if processes * nodes.count > 1:
                return launcher.launch(Path(__file__), arguments, processes, nodes, meeting)
            train_here()
        return 0

    if runtime.is_worker():
        with launcher.reporting():
            train_here()
        return 0
    said = args.checkpoints / "meeting.json"
    if nodes.index:
        meeting = launcher.join_meeting(nodes, said)
        return 0 if meeting is None else train_together(meeting)
    loggers.check(settings.training.loggers)
    with exclusive(args.checkpoints.with_name(f".{args.checkpoints.name}.lock")):
        folder.mkdir(parents=True, exist_ok=True)
        done = is_whole(folder / "model", key)
        meeting = launcher.call_meeting(nodes, said, needed=not done)
        if done:
            log.info("this training is already done: its inputs, settings and code have not changed")
        elif code := train_together(meeting):
            return code
        finish(folder, args.output)
    return 0


if __name__ == "__main__":
    run(main)
