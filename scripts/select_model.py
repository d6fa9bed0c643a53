"""Choose the best of several runs by its accuracy on a part of the held-out prompts, and put its model in a folder.

The model's files are linked; its card ends with the reason: the accuracy on the part that chose it and on the other,
and which runs are within its noise. `selection.json` has the same for programs.

Example:
  python scripts/select_model.py --settings '{"name": "best", "benchmark": "eval", "share": 0.5}' \\
      --metrics results/evals/sweep-*/eval/metrics.json --scores results/evals/sweep-*/eval/scores.parquet \\
      --models results/models/sweep-*/run.json --output results/models/best
"""

from pathlib import Path

from rewardline.core.artifacts import verify_model
from rewardline.core.cli import StageParser, log, run
from rewardline.core.files import atomic_folder
from rewardline.evaluation.choices import ChosenRun
from rewardline.evaluation.ensembles.export import copy_model
from rewardline.evaluation.selection import choose
from rewardline.evaluation.settings import SelectSettings


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = StageParser(__doc__, SelectSettings)
    options.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of each run")
    options.add_argument("--scores", type=Path, nargs="+", required=True, help="scores.parquet of each run")
    options.add_argument("--models", type=Path, nargs="+", required=True, help="run.json of each run")
    options.add_argument("--output", type=Path, required=True, help="folder for the chosen model")
    args = options.start(argv)
    scores = {path.parent.parent.name: path for path in args.scores}
    models = {path.parent.name: path for path in args.models}
    choice = choose(args.settings, args.metrics, scores, models)
    publish(choice, models[choice.run].parent, args.output)
    for sentence in choice.sentences():
        log.info("%s", sentence)
    return 0


def publish(choice: ChosenRun, model: Path, output: Path) -> None:
    """Link a model's files to `output`, beside a card with the reason for the choice."""
    verify_model(model)
    with atomic_folder(output) as out:
        copy_model(model, out)
        with (out / "README.md").open("a", encoding="utf-8") as card:
            rows = [f"| {one.name} | {one.chosen_on.words()} |" for one in choice.standings]
            table = ["| run | accuracy on the pairs that chose |", "|---|---|", *rows]
            card.write("\n".join(["", "## Choice", "", *choice.sentences(), "", *table, ""]))
        choice.write(out / "selection.json")


if __name__ == "__main__":
    run(main)
