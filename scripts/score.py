"""Score answers to prompts with a trained reward model.

One prompt with some answers, as a table, best first; or several prompts, each followed by its answers:
    python scripts/score.py --model results/models/demo-seed0 --prompt "2 + 2?" --answer "4." --answer "5."

A file of rows (JSON Lines, CSV or Parquet; - for the terminal), keeping all their columns and adding scores:
    python scripts/score.py --model results/models/demo-seed0 --input rows.jsonl --output scored.jsonl

A row is read as one of a dataset. It holds a `prompt` (text, a transcript or messages) with an `answer`, a list of
`answers`, or `chosen` and `rejected`; or `messages`, the last of which is the answer. It gets a `score`, `scores`, or
`chosen_score` and `rejected_score`; a row that cannot be scored gets an `error`, and the exit code is then 1.

The model is a folder, or a name on the hub, of any reward model that transformers load as a sequence classifier of one
label; or a folder that the second step of DeepSpeed-Chat saved, with --convert-bin. A model that was trained on the
attributes of answers gives these too (`score_helpfulness`). Several models, or the folder of an
ensemble, are scored together: each score then comes with mean and standard deviation over the members (`score_mean`,
`score_std`), and --combine says how they become one. The standard deviation is a disagreement only if the models are
normalized, or an ensemble of the pipeline.
"""

from rewardline.core.cli import StageParser, log, run, start_logging
from rewardline.core.errors import UserError
from rewardline.core.files import home_expanded
from rewardline.scoring.files import check_files, score_file
from rewardline.scoring.options import add_model_options, load_scorer
from rewardline.scoring.prompts import pair_up, score_table


def main(argv: list[str] | None = None) -> int:
    """Score prompts' answers or a file."""
    options = StageParser(__doc__)
    options.add_argument(
        "--prompt", action="append", dest="texts", type=lambda text: ("prompt", text), metavar="TEXT", help="a prompt"
    )
    options.add_argument(
        "--answer",
        action="append",
        dest="texts",
        type=lambda text: ("answer", text),
        metavar="TEXT",
        help="an answer to the prompt before; any number",
    )
    options.add_argument(
        "--input", type=home_expanded, help="file of rows, as their ending says (also .gz and .zst), or - for stdin"
    )
    options.add_argument(
        "--output", type=home_expanded, default="-", help="where the rows with scores go, or - for stdout"
    )
    options.add_argument("--prefix", default="", help="what the names of the new columns begin with")
    add_model_options(options)
    args = options.parse_args(argv)
    start_logging(args.log, keep_stdout=True)
    if bool(args.texts) == (args.input is not None) or (args.texts and args.output != "-"):
        raise UserError("give either --prompt with --answer, or --input with --output")
    prompts = pair_up(args.texts or [])
    if args.input is not None:
        check_files(args.input, args.output)
    scorer = load_scorer(args)
    errors = 0
    if prompts:
        print(score_table(scorer, prompts))
    else:
        errors = score_file(args.input, args.output, scorer, args.prefix)
    if scorer.cut:
        log.warning("%d prompts lost their beginning, to fit into %d tokens", scorer.cut, scorer.max_length)
    return 1 if errors else 0


if __name__ == "__main__":
    run(main)
