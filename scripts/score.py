"""Score answers to prompts with a trained reward model.

One prompt with some answers, as a table, best first; or several prompts, each followed by its answers:
    python scripts/score.py --model results/models/demo-seed0 --prompt "2 + 2?" --answer "4." --answer "5."

A file of rows (JSON Lines, CSV or Parquet; - for the terminal), keeping all their columns and adding scores:
    python scripts/score.py --model results/models/demo-seed0 --input rows.jsonl --output scored.jsonl

A row holds a `prompt` (text or a list of messages) with an `answer`, a list of `answers`, or `chosen` and `rejected`;
or `messages`, the last of which is the answer. It gets a `score`, `scores`, or `chosen_score` and `rejected_score`; a
row that cannot be scored gets an `error`, and the exit code is then 1.

The model is a folder, or a name on the hub, of any reward model that transformers load as a sequence classifier of one
label; or a folder that the second step of DeepSpeed-Chat saved, with --convert-bin.
"""

import argparse
import textwrap
from typing import Any

from rewardline.core.cli import StageParser, log, run, start_logging
from rewardline.core.errors import UserError
from rewardline.data.schema import Message
from rewardline.scoring.files import check_files, score_file
from rewardline.scoring.options import add_model_options, load_scorer


class Ask(argparse.Action):
    """Collects [prompt, answers] from --prompt and --answer: an answer belongs to the prompt before it.

    Answers in front of the first prompt are the first prompt's.
    """

    def __call__(self, _parser: Any, namespace: argparse.Namespace, value: Any, _option: str | None = None) -> None:
        """Take one value of --prompt or --answer."""
        asked: list[tuple[str | None, list[str]]] = namespace.asked
        if self.metavar == "ANSWER":
            if not asked:
                asked.append((None, []))
            asked[-1][1].append(value)
        elif asked and asked[-1][0] is None:
            asked[-1] = (value, asked[-1][1])
        else:
            asked.append((value, []))


def table(rows: list[tuple[str, str, float]], width: int = 100) -> str:
    """Query, answer and score in columns, in the order given."""
    column = (width - 14) // 2
    lines = [f"{'query':<{column}}  {'answer':<{column}}  {'score':>8}", "-" * width]
    for prompt, answer, score in rows:
        left, right = textwrap.wrap(prompt, column) or [""], textwrap.wrap(answer, column) or [""]
        for index in range(max(len(left), len(right))):
            query = left[index] if index < len(left) else ""
            text = right[index] if index < len(right) else ""
            number = f"{score:>8.4f}" if index == 0 else ""
            lines.append(f"{query:<{column}}  {text:<{column}}  {number}".rstrip())
        lines.append("-" * width)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Score a prompt's answers or a file."""
    options = StageParser(__doc__)
    asks: dict[str, Any] = {"action": Ask, "dest": "asked", "default": []}
    options.add_argument("--prompt", metavar="PROMPT", help="a prompt", **asks)
    options.add_argument("--answer", metavar="ANSWER", help="an answer to the prompt before; any number", **asks)
    options.add_argument("--input", help="file of rows, as their ending says (also .gz and .zst), or - for stdin")
    options.add_argument("--output", default="-", help="where the rows with scores go, or - for stdout")
    options.add_argument("--prefix", default="", help="what the names of the new columns begin with")
    add_model_options(options)
    args = options.parse_args(argv, argparse.Namespace(asked=[]))
    start_logging(args.log, keep_stdout=True)
    if bool(args.asked) == (args.input is not None) or (args.asked and args.output != "-"):
        raise UserError("give either --prompt with --answer, or --input with --output")
    if not all(prompt and prompt.strip() and answers for prompt, answers in args.asked):
        raise UserError("each --prompt needs some text and at least one --answer")
    if args.input is not None:
        check_files(args.input, args.output)
    scorer = load_scorer(args)
    count = errors = 0
    if args.asked:
        prompts = [[Message(role="user", content=prompt)] for prompt, _ in args.asked]
        rows = []
        for (prompt, answers), scores in zip(
            args.asked, scorer.score(prompts, [answers for _, answers in args.asked]), strict=True
        ):
            if isinstance(scores, Exception):
                raise UserError(f"{prompt}: {scores}")
            ranked = sorted(zip(answers, scores, strict=True), key=lambda pair: -pair[1])
            rows += [(prompt, answer, score) for answer, score in ranked]
        print(table(rows))
    else:
        count, errors = score_file(args.input, args.output, scorer, args.prefix)
    if scorer.cut:
        log.warning("%d prompts lost their beginning, to fit into %d tokens", scorer.cut, scorer.max_length)
    if errors:
        log.warning("%d of %d rows could not be scored; each says why in `%serror`", errors, count, args.prefix)
    return 1 if errors else 0


if __name__ == "__main__":
    run(main)
