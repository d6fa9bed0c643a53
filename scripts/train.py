"""Train a reward model with DeepSpeed.

    python scripts/train.py --settings @settings.json --tokens results/tokens/main/opt-350m \\
        --base results/base/opt-350m --output results/models/first --checkpoints results/checkpoints/first

After a kill the same command resumes from the newest checkpoint, also with another number of processes or another ZeRO
stage. The folder of checkpoints is keyed by all that the weights depend on beyond rounding; a finished training run is
not repeated. After a SIGTERM it saves a checkpoint and ends with code 75, after a Ctrl-C with 130 (a second one ends it
at once). Under Slurm, the nodes of a step with one task on each (`srun --ntasks-per-node=1`) train together.
"""

import logging
import sys
from pathlib import Path

from rewardline.core import runtime
from rewardline.core.cli import StageParser, log, run, start_logging
from rewardline.core.gpus import reserved_gpus
from rewardline.training import reuse
from rewardline.training.processes import launcher, signals
from rewardline.training.settings import TrainStageSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, TrainStageSettings)
    options.add_argument("--tokens", required=True, type=Path, help="folder of the mixture's tokens")
    options.add_argument("--eval-tokens", nargs="*", default=[], help="NAME=FOLDER: tokens of other evaluation sets")
    options.add_argument("--base", required=True, type=Path, help="folder of the base model")
    options.add_argument("--output", required=True, type=Path, help="folder for the trained model; of a rung, its file")
    options.add_argument("--rungs", type=Path, nargs="*", default=[], help="earlier rungs of its sweep, in order")
    options.add_argument("--checkpoints", required=True, type=Path, help="folder for checkpoints of this run")
    options.add_argument("--trackers", type=Path, help="folder for what loggers keep here; default: beside checkpoints")
    options.add_argument("--gpus", type=int, default=0, help="GPUs; one process each")
    options.add_argument("--processes", type=int, default=1, help="processes on the CPU")
    arguments = sys.argv[1:] if argv is None else argv
    args = options.parse_args(arguments)
    nodes = launcher.slurm_nodes()
    start_logging(args.log, append=runtime.is_worker() or nodes.index > 0)
    if runtime.rank() > 0:
        log.setLevel(logging.ERROR)  # only rank 0 logs
    signals.on_stop(signals.leave)
    trackers = args.trackers or args.checkpoints.with_name("trackers")
    eval_tokens = {name: Path(path) for name, _, path in (part.partition("=") for part in args.eval_tokens)}
    folders = (args.tokens, args.base, args.checkpoints, trackers)
    job = reuse.TrainingJob(args.settings, *folders, args.rungs, eval_tokens)
    processes = args.gpus or args.processes

    def train_here() -> None:
        training = args.settings.training
        runtime.prepare(args.gpus, training.threads, deterministic=training.deterministic)
        from rewardline.training.train import train  # only now, as torch and deepspeed read the environment

        train(job)

    def train_on_node(rendezvous: launcher.Rendezvous) -> int:
        with reserved_gpus(args.gpus):
            if processes * nodes.count > 1:
                return launcher.launch(Path(__file__), arguments, processes, nodes, rendezvous)
            train_here()
        return 0

    if runtime.is_worker():
        with launcher.reporting():
            train_here()
        return 0
    return job.run(train_on_node, nodes, args.output)


if __name__ == "__main__":
    run(main)
