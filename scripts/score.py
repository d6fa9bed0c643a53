"""Score answers to prompts with a trained reward model.

One prompt with some answers, as a table, best first:
    python scripts/score.py --model results/models/demo-seed0 --prompt "2 + 2?" --answer "4." --answer "5."

A file of rows (JSON Lines, - for the terminal), keeping all their keys and adding scores:
    python scripts/score.py --model results/models/demo-seed0 --input rows.jsonl --output scored.jsonl

A row holds a `prompt` (text or a list of messages) with an `answer`, a list of `answers`, or `chosen` and `rejected`.
It gets a `score`, `scores`, or `chosen_score` and `rejected_score`; a row that cannot be scored gets an
`error`, and the exit code is then 1.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rewardline import distributed
from rewardline.artifacts import atomic_file
from rewardline.cli import UserError, log, parser, progress, run, start_logging

Json = dict[str, Any]
ROWS_AT_ONCE = 512
ROLES = ("system", "user", "assistant")


class RowError(Exception):
    """What is wrong with a row."""


class Scorer:
    """A reward model with its tokenizer; scores as the pipeline's own evaluation does."""

    def __init__(
        self,
        folder: str,
        *,
        batch_tokens: int,
        max_length: int | None,
        template: str | None,
        trust: bool,
        raw: bool = False,
    ) -> None:
        import torch

        from rewardline.reward_model import RewardModel, load_reward_model
        from rewardline.tokenization import ConversationEncoder, load_tokenizer

        made = Path(folder) / "run.json"
        known = json.loads(made.read_text(encoding="utf-8"))["tokenization"] if made.is_file() else {}
        loaded = load_reward_model(folder, dtype="auto", trust_remote_code=trust)
        tokenizer = load_tokenizer(folder, trust)
        limit: Any = max_length or known.get("max_length") or getattr(loaded.config, "max_position_embeddings", 2048)
        self._model = RewardModel(loaded, raw=raw, max_length=int(limit))
        if self._model.max_tokens is not None:
            limit = min(limit, self._model.max_tokens)
        self._encoder = ConversationEncoder(
            tokenizer,
            max_length=int(limit),
            template=template or known.get("template", "auto"),
            end_token=known.get("end_token"),
        )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._pad_id = int(tokenizer.pad_token_id)
        self._batch_tokens = batch_tokens

    def score(self, prompts: list[list[dict[str, str]]], answers: list[list[str]]) -> list[list[float] | RowError]:
        """The scores of each prompt's answers; a `RowError` where an answer does not fit into the model."""
        from rewardline.scoring import score_comparisons
        from rewardline.shards import Comparison
        from rewardline.templates import UnusableError
        from rewardline.tokenization import Encoded, common_prefix

        encoded = [
            next(iter(item.unfit.values()), item) if isinstance(item, Encoded) else item
            for item in self._encoder.encode(prompts, answers)
        ]
        comparisons = []
        for item in encoded:
            if not isinstance(item, UnusableError):
                prefix = common_prefix(item.sequences)
                tails = [sequence[prefix:] for sequence in item.sequences]
                comparisons.append(Comparison("", item.sequences[0][:prefix], tails, [], item.answer_start))
        scored = score_comparisons(
            self._model, iter(comparisons), device=self._device, pad_id=self._pad_id, batch_tokens=self._batch_tokens
        )
        results: list[list[float] | RowError] = []
        for item in encoded:
            if isinstance(item, UnusableError):
                results.append(RowError(f"{item}; the model takes {self._encoder.max_length} with its prompt"))
            else:
                results.append([float(score) for score in next(scored)[1]])
        return results


def conversation(row: Json) -> tuple[list[dict[str, str]], list[str]]:
    """The prompt's messages and the answers of a row.

    Raises:
        RowError: something is missing or is not text.
    """
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        messages = [{"role": "user", "content": prompt}]
    elif isinstance(prompt, list) and prompt and all(map(_is_message, prompt)):
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
    else:
        raise RowError("`prompt` must be a text or a list of messages with role and content")
    if "answers" in row:
        answers = row["answers"]
    elif "answer" in row:
        answers = [row["answer"]]
    elif "chosen" in row and "rejected" in row:
        answers = [row["chosen"], row["rejected"]]
    else:
        raise RowError("has neither `answer` nor `answers` nor `chosen` and `rejected`")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise RowError("its answers must be texts")
    try:
        "".join([*answers, *(turn["content"] for turn in messages)]).encode("utf-8")
    except UnicodeEncodeError:
        raise RowError("has a lone surrogate, which is not text") from None
    return messages, answers


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)


def with_scores(row: Json, scores: list[float]) -> Json:
    """`row` with its scores added."""
    if "answers" in row:
        return {**row, "scores": scores}
    if "answer" in row:
        return {**row, "score": scores[0]}
    return {**row, "chosen_score": scores[0], "rejected_score": scores[1]}


def read_row(number: int, line: str) -> tuple[Json, tuple[list[dict[str, str]], list[str]] | None]:
    """A line as a row, and its prompt and answers; a bad one has an `error` and None."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return {"line": number, "error": f"is not JSON: {error}"}, None
    if not isinstance(row, dict):
        return {"line": number, "error": "is not an object"}, None
    try:
        return row, conversation(row)
    except RowError as error:
        return {**row, "error": str(error)}, None


def scored_rows(lines: Iterator[str], scorer: Scorer) -> Iterator[Json]:
    """Every row with its scores or its error, in order; blank lines are skipped."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chunk := [read_row(number, line) for number, line in islice(numbered, ROWS_AT_ONCE)]:
        good = [content for _, content in chunk if content is not None]
        scored = iter(scorer.score([prompt for prompt, _ in good], [answers for _, answers in good]))
        for row, content in chunk:
            if content is None:
                yield row
                continue
            scores = next(scored)
            yield {**row, "error": str(scores)} if isinstance(scores, RowError) else with_scores(row, scores)


def score_file(source: str, target: str, scorer: Scorer) -> int:
    """Score a file of rows into another; - is stdin or stdout. Returns how many rows have an error."""
    errors = 0
    with ExitStack() as stack:
        lines: TextIO = sys.stdin
        if source != "-":
            if not Path(source).is_file():
                raise UserError(f"--input {source} does not exist")
            lines = stack.enter_context(Path(source).open(encoding="utf-8", errors="replace"))
        out: TextIO = sys.stdout
        if target != "-":
            out = stack.enter_context(stack.enter_context(atomic_file(Path(target))).open("w", encoding="utf-8"))
        bar = stack.enter_context(progress("scoring", unit="row"))
        for row in scored_rows(iter(lines), scorer):
            errors += "error" in row
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.update(1)
    return errors


def table(prompt: str, answers: list[str], scores: list[float], width: int = 100) -> str:
    """Query, answer and score in columns, best answer first."""
    ranked = sorted(zip(answers, scores, strict=True), key=lambda pair: -pair[1])
    column = (width - 14) // 2
    lines = [f"{'query':<{column}}  {'answer':<{column}}  {'score':>8}", "-" * width]
    for answer, score in ranked:
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
    options = parser(__doc__)
    options.add_argument("--model", required=True, help="folder of a trained reward model, or its name on the hub")
    options.add_argument("--prompt", help="the prompt")
    options.add_argument("--answer", action="append", default=[], help="an answer; may be given several times")
    options.add_argument("--input", help="JSON Lines of rows, or - for stdin")
    options.add_argument("--output", default="-", help="where the rows with scores go, or - for stdout")
    options.add_argument("--batch-tokens", type=int, default=8192, help="most tokens computed at once")
    options.add_argument("--max-length", type=int, help="most tokens of prompt and answer; the model's own by default")
    options.add_argument("--template", choices=["chat", "plain"], help="how a conversation becomes text")
    options.add_argument("--raw", action="store_true", help="leave out the normalisation that is stored with the model")
    options.add_argument("--threads", type=int, default=len(distributed.cores()))
    options.add_argument("--trust-remote-code", action="store_true", help="execute the model repository's own code")
    args = options.parse_args(argv)
    start_logging(args.log)
    if (args.prompt is None) == (args.input is None):
        raise UserError("give either --prompt with --answer, or --input with --output")
    if args.prompt is not None and not (args.prompt.strip() and args.answer):
        raise UserError("--prompt needs some text and at least one --answer")
    if not Path(args.model).is_dir() and args.model.startswith((".", "/", "~", "results/")):
        raise UserError(f"--model {args.model} is not a folder")
    distributed.quiet(args.threads)
    limits = {"batch_tokens": args.batch_tokens, "max_length": args.max_length}
    scorer = Scorer(args.model, **limits, template=args.template, trust=args.trust_remote_code, raw=args.raw)
    if args.prompt is not None:
        (scores,) = scorer.score([[{"role": "user", "content": args.prompt}]], [args.answer])
        if isinstance(scores, RowError):
            raise UserError(str(scores))
        print(table(args.prompt, args.answer, scores))
        return 0
    errors = score_file(args.input, args.output, scorer)
    if errors:
        log.warning("%d rows could not be scored; each says why in `error`", errors)
    return 1 if errors else 0


if __name__ == "__main__":
    run(main)
