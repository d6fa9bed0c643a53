"""A small policy is trained on its own best answers by a reward model: best-of-n, and what it does to the answers.

    snakemake --cores all                                # trains the reward model of the default run, in two minutes
    python examples/best_of_n.py --model results/models/demo-seed0

The policy is a language model of the reward model's shape and vocabulary. First it imitates the answers of the demo's
generator, good and flawed ones alike. Then, in each round, it answers new questions n times each, and is trained on the
best answer to each by the reward model's scores (rejection sampling fine-tuning). The generator knows the right value,
which nothing is trained on in the rounds; so two tables show what more reward is worth: reward, length in words and
share of right answers. The first is of the best of n answers of the policy that only imitates, for several n; the
second of all answers of the policy and of the best of all n, by round. Where the reward grows and that share does not,
the policy is optimized beyond what the reward model knows (Gao et al. 2022, arXiv 2210.10760). The defaults take a few
minutes; --imitate sets how much the policy knows, --problems and --rounds how much it is trained on.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from rewardline.data.demo.answers import FLAWS, Message, compose, dialogue, wrong_value
from rewardline.data.demo.questions import Question, ask
from rewardline.data.demo.tables import ANY, WEIGHTED
from rewardline.evaluation.metrics.best_of import best_of_n_divergence, expected_best
from rewardline.scoring.rows import UnscorableError
from rewardline.scoring.text_scorer import Scorer

KINDS = WEIGHTED["one_word"]
"""Kinds of questions whose answer is a single word, so that it is known which answers are right."""
GOOD = 0.5
"""How often the answers that the policy imitates are good."""
RICH = 0.2  # as in the demo's pairs
ROWS = 64  # of a batch
PASSES = 4  # over the best answers of a round: training is cheaper than sampling
TOKENS = 40  # of an answer at most; those of the demo have 14 on average


class Problem(NamedTuple):
    """A question, and the messages that ask it."""

    prompt: list[Message]
    question: Question


class Answers(NamedTuple):
    """Answers to each of some problems, each array [problems, answers]."""

    texts: list[list[str]]
    rewards: npt.NDArray[np.float64]
    words: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]


def draw(rng: Random) -> Problem:
    """A new problem."""
    question = ask(rng, rng.choice(KINDS))
    return Problem(dialogue(rng, question, rng.choice(ANY)), question)


def imitated(rng: Random, problem: Problem) -> str:
    """An answer that is good or, else, has one of the flaws of the demo's rejected answers."""
    if rng.random() < GOOD:
        return compose(rng, problem.question, problem.question.right, RICH)
    spoil = rng.choice([wrong_value, *FLAWS.values()])
    return spoil(rng, problem.question, draw(rng).question, RICH)


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer gives the right value, in one of the generator's sentences, and no other in any of them."""
    sentences = "|".join(re.escape(text).replace(re.escape("{}"), r"(\S+)") for text in question.answers)
    values = {match[match.lastindex or 0].lower() for match in re.finditer(sentences, answer, re.IGNORECASE)}
    return values == {question.right.lower()}


class Policy:
    """A language model that answers prompts."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, learning_rate: float) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._optimizer = torch.optim.AdamW(model.parameters(), learning_rate)

    def train(self, problems: Sequence[Problem], answers: Sequence[str]) -> None:
        """A pass over answers, of which every token counts the same."""
        self._model.train()
        for start in range(0, len(problems), ROWS):
            heads = [self._ids(problem) for problem in problems[start : start + ROWS]]
            tails = [
                self._tokenizer(f" {answer}{self._tokenizer.eos_token}", add_special_tokens=False)["input_ids"]
                for answer in answers[start : start + ROWS]
            ]
            rows = [{"input_ids": head + tail} for head, tail in zip(heads, tails, strict=True)]
            batch = self._tokenizer.pad(rows, padding_side="right", return_tensors="pt")
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            for row, head in zip(labels, heads, strict=True):
                row[: len(head)] = -100
            self._model(**batch, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()

    def sample(self, problems: Sequence[Problem], count: int) -> list[list[str]]:
        """`count` answers to each problem, drawn from the policy as it is: temperature 1, no token left out."""
        self._model.eval()
        texts: list[str] = []
        size = max(1, 8 * ROWS // count)
        for start in range(0, len(problems), size):
            rows = [{"input_ids": self._ids(problem)} for problem in problems[start : start + size]]
            batch = self._tokenizer.pad(rows, padding_side="left", return_tensors="pt")
            with torch.no_grad():
                found = self._model.generate(
                    **batch, do_sample=True, top_k=0, num_return_sequences=count, max_new_tokens=TOKENS
                )
            width = batch["input_ids"].shape[1]
            texts += self._tokenizer.batch_decode(found[:, width:], skip_special_tokens=True)
        texts = [text.strip() for text in texts]
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def _ids(self, problem: Problem) -> list[int]:
        text = self._tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def judge(scorer: Scorer, problems: Sequence[Problem], texts: list[list[str]]) -> Answers:
    """Answers with the scores of the reward model, and whether the generator calls them right."""
    rewards = []
    for found in scorer.score([problem.prompt for problem in problems], texts):
        if isinstance(found, UnscorableError):
            raise SystemExit(f"an answer cannot be scored: {found}")
        rewards.append(found)
    words = [[len(text.split()) for text in row] for row in texts]
    right = [[is_right(problem.question, text) for text in row] for problem, row in zip(problems, texts, strict=True)]
    return Answers(texts, np.array(rewards), np.array(words, np.float64), np.array(right))


def cells(reward: float, words: float, right: float) -> str:
    """Three cells of a table."""
    return f"{reward:.2f} | {words:.1f} | {right:.0%}"


def table_by_n(found: Answers) -> str:
    """Means over the problems of the best of n answers, for n = 1, 2, 4, ... up to all."""
    count = found.rewards.shape[1]
    sizes = [*(2**k for k in range(count.bit_length()) if 2**k < count), count]
    columns = [
        np.mean([expected_best(*row, sizes) for row in zip(found.rewards, values, strict=True)], axis=0)
        for values in (found.rewards, found.words, found.right.astype(np.float64))
    ]
    head = "| n | KL from the policy | reward | words | right |\n|---|---|---|---|---|"
    table = zip(sizes, *columns, strict=True)
    rows = [f"| {n} | {best_of_n_divergence(n):.2f} | {cells(*means)} |" for n, *means in table]
    return "\n".join([head, *rows])


def main(argv: list[str] | None = None) -> int:
    """Train a policy and print both tables, in Markdown."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, help="folder of the reward model, trained on the demo")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--problems", type=int, default=64, help="new questions of a round")
    options.add_argument("--answers", type=int, default=16, help="answers to each question, n of best-of-n")
    options.add_argument("--imitate", type=int, default=12_800, help="answers that the policy imitates at first")
    options.add_argument("--learning-rate", type=float, default=2e-3)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(argv)
    rng = Random(args.seed)
    torch.manual_seed(args.seed)
    scorer = Scorer(args.model)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    config = AutoConfig.from_pretrained(args.model, use_cache=True)
    policy = Policy(AutoModelForCausalLM.from_config(config), tokenizer, args.learning_rate)
    shown = [draw(rng) for _ in range(args.imitate)]
    policy.train(shown, [imitated(rng, problem) for problem in shown])
    for number in range(args.rounds + 1):
        problems = [draw(rng) for _ in range(args.problems)]
        found = judge(scorer, problems, policy.sample(problems, args.answers))
        if number == 0:
            print(f"{table_by_n(found)}\n", flush=True)
            print(f"| round | reward | words | right | reward, best of {args.answers} | words | right |")
            print("|---|---|---|---|---|---|---|")
        best = np.arange(len(problems)), found.rewards.argmax(1)
        every, chosen = (
            cells(*(values[part].mean() for values in (found.rewards, found.words, found.right)))
            for part in (slice(None), best)
        )
        print(f"| {number} | {every} | {chosen} |", flush=True)
        if number < args.rounds:
            for _ in range(PASSES):
                policy.train(problems, [row[column] for row, column in zip(found.texts, best[1], strict=True)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
