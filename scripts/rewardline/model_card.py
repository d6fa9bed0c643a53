"""The model card: what a trained reward model is, how it was made, and how to use it."""

from typing import Any

_CARD = """---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, rewardline]
---

# {run}

A reward model: it gives an answer to a prompt a score, the higher the better. Differences between scores of answers
to the same prompt mean something, a score alone does not: sigmoid(a - b) is the modelled probability that the answer
with score a is preferred to the one with score b.

## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{run}").eval()
tokenizer = AutoTokenizer.from_pretrained("{run}")
text = {example}
score = model(**tokenizer(text, return_tensors="pt"{special})).logits[0, 0].item()
```

The text must end with the end token `{end_token}`, where the score is read. Pad on the right.

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
| objective | pairwise logistic ranking loss |
| learning rate | {learning_rate}, {schedule} |
| seed | {seed} |
| held-out accuracy while training | {eval_accuracy} |
| made with | {made_with} |

All settings, versions and hashes stand in `run.json`, every step in `log.jsonl`.
"""


def model_card(run: dict[str, Any]) -> str:
    """The Markdown of the card, from what `run.json` holds."""
    training, tokens = run["training"], run["tokenization"]
    if tokens["template"] == "plain":
        example = f'"Human: What is the capital of France?\\n\\nAssistant: Paris." + "{tokens["end_token"]}"'
        special = ""
    else:
        example = "tokenizer.apply_chat_template(messages, tokenize=False).rstrip()"
        special = ", add_special_tokens=False"
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
        special=special,
        end_token=tokens["end_token"],
        eval_accuracy="none was measured" if accuracy is None else f"{accuracy:.3f}",
        made_with=made_with,
    )
