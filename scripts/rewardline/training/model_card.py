"""The model card: what a trained reward model is, how it was made, and how to use it."""

from typing import Any

_CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, rewardline]
---

# {run}

A reward model: it gives an answer to a prompt a score, the higher the better. Differences between scores of answers
to the same prompt mean something, a score alone does not: {odds} is the modelled probability that the answer
with score a is preferred to the one with score b.

## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{run}").eval()
tokenizer = AutoTokenizer.from_pretrained("{run}")
text = {example}
score = model(**tokenizer(text, return_tensors="pt"{special})).logits[0, 0].item()
```

The text must end with the end token `{end_token}`{place}. Pad on the right.
{reading}
## Training

| | |
|---|---|
| mixture | {mixture}: {train_pairs:,} training pairs |
| base model | {model} ({parameters:,} parameters, {trained_parameters:,} trained) |
| steps | {steps:,} of at most {pairs_per_step} pairs; {pairs:,} pairs seen |
| weights | of step {exported_step:,} |
| tokens | {tokens:,} (chosen and rejected in full), {tokens_per_second:,.0f} a second on {device} |
| computed | {computed_tokens:,} tokens: {shared_share:.1%} less by sharing prompts; {padding_share:.1%} padding |
| utilisation | {utilisation:.1%} of {peak:.3g} TFLOP/s ({peak_source}) |
| objective | {objective} |
| score | {score} |
| scores of the held-out split | {normalization} |
| learning rate | {learning_rate}, {schedule} |
| seed | {seed} |
| held-out accuracy while training | {eval_accuracy} |
| made with | {made_with} |

All settings, versions and hashes stand in `run.json`, every step in `log.jsonl`.

## Results and limits

What the model gets right on held-out pairs and benchmarks stands in `EVALUATION.md` beside this card, once it has been
evaluated.

- It has learned from {train_pairs:,} pairs of {mixture}, and is known to judge text like theirs only: other tasks,
  languages and styles need pairs of their own to test it on.
- A prompt with its answer has at most {max_length:,} tokens: the oldest turns of a longer prompt are not seen.
- It compares answers to one prompt. Scores of answers to different prompts, and those of another run or seed, are not
  on one scale.
- A policy trained against it finds what it overrates, such as length or flattery: compare with people on the way.
"""


OBJECTIVES = {
    "pairwise": "pairwise logistic ranking loss",
    "kwise": "pairwise logistic ranking loss, each prompt weighing the same",
    "per_token": "logistic ranking loss at each token from the first that differs",
    "per_token_published": "logistic ranking loss at each token from the first that differs, padding included",
}
SCORES = {
    "end": "read at the end token",
    "first_padding": "read at the first padding token",
    "mean": "the mean over the answer's tokens, end token included",
}


def model_card(run: dict[str, Any]) -> str:
    """The Markdown of the card, from what `run.json` holds."""
    training, tokens = run["training"], run["tokenization"]
    if tokens["template"] == "plain":
        example = f'"Human: What is the capital of France?\\n\\nAssistant: Paris." + "{tokens["end_token"]}"'
        special = ""
    else:
        example = "tokenizer.apply_chat_template(messages, tokenize=False).rstrip()"
        special = ", add_special_tokens=False"
    normalization = run["normalization"]
    accuracy = run["final"].get("eval_accuracy")
    made_with = ", ".join(f"{name} {run['versions'][name]}" for name in ("torch", "deepspeed", "transformers"))
    if run["git"]["commit"]:
        made_with += f"; rewardline {run['git']['commit'][:12]}{', changed since' if run['git']['dirty'] else ''}"
    return _CARD.format(
        **{key: run[key] for key in ("run", "mixture", "model", "seed", "parameters", "trained_parameters", "steps")},
        **{key: run[key] for key in ("pairs", "tokens", "tokens_per_second", "device", "train_pairs", "exported_step")},
        **{key: run[key] for key in ("computed_tokens", "shared_share", "padding_share", "utilisation", "peak_source")},
        peak=run["peak_flops_per_second"] / 1e12,
        **{key: training[key] for key in ("pairs_per_step", "learning_rate", "schedule")},
        example=example,
        odds="sigmoid(a - b)" if normalization is None else f"sigmoid({normalization['std']:.4g} * (a - b))",
        place=", where the score is read" if training["score"] == "end" else "",
        reading=_reading(training["score"], normalization),
        objective=OBJECTIVES[training["loss"]],
        score=SCORES[training["score"]],
        normalization=_moments(normalization),
        special=special,
        end_token=tokens["end_token"],
        max_length=tokens["max_length"],
        eval_accuracy="none was measured" if accuracy is None else f"{accuracy:.3f}",
        made_with=made_with,
    )


def _reading(score: str, normalization: dict[str, Any] | None) -> str:
    """Where what plain transformers give is not what rewardline gives."""
    notes = []
    if score != "end":
        notes.append(
            f"This model's score is {SCORES[score]}, as `rewardline` in config.json says. The code above reads the end "
            "token, as transformers do, and gives **another score**: use rewardline's `score.py`."
        )
    elif normalization is not None and not normalization["folded"]:
        notes.append(
            "The code above gives the raw score, whose differences are log odds as they are: sigmoid(a - b). "
            "rewardline gives the normalised one, (raw - {mean:.6g}) / {std:.6g}, with the numbers of config.json; the "
            "factor {std:.4g} above is for that.".format(**normalization)
        )
    return "".join(f"\n{note}\n" for note in notes)


def _moments(normalization: dict[str, Any] | None) -> str:
    if normalization is None:
        return "not normalised"
    moments = "mean {mean:.4g}, standard deviation {std:.4g}".format(**normalization)
    if not normalization["folded"]:
        return f"{moments}, stored"
    left = normalization["mean_left"]
    return f"{moments}, folded into the weights" + (f" but for a mean of {left:.4g}" if left else "")
