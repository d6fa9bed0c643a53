"""The procedure of DeepSpeed-Chat's step 2, for the pairs of benchmarks/train.py: python deepspeed_chat.py JOB.json

Every sequence is padded to the maximum length; chosen and rejected sequences are the two halves of a batch; a linear
head scores every token. The loss of a pair is the mean logistic loss over the tokens from the first one that differs to
the end of the longer answer, padding of the shorter one included (Yao et al. 2023, arXiv 2308.01320).

benchmarks/evaluate.py uses the model of this file.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from rewardline.model.processes import start_processes


class RewardModel(nn.Module):
    """A transformer with a score head for every token, and the loss."""

    def __init__(self, base: str, pad_id: int) -> None:
        super().__init__()
        model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32)
        self.transformer, self.head, self.pad_id = model.base_model, model.score, pad_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and the scores [P] of chosen and rejected sequences at their end tokens; ids are int64 [2P, L]."""
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        rewards = self.head(hidden).squeeze(-1)
        pairs = len(input_ids) // 2
        total = torch.zeros((), device=rewards.device)
        chosen_scores, rejected_scores = [], []
        for row in range(pairs):
            chosen, rejected = input_ids[row], input_ids[pairs + row]
            chosen_end, rejected_end = self._end(chosen), self._end(rejected)
            end = max(chosen_end, rejected_end)
            begin = int((chosen != rejected).nonzero()[0].item())
            chosen_part, rejected_part = rewards[row, begin:end], rewards[pairs + row, begin:end]
            total = total - functional.logsigmoid(chosen_part - rejected_part).mean()
            chosen_scores.append(rewards[row, chosen_end - 1])
            rejected_scores.append(rewards[pairs + row, rejected_end - 1])
        return total / pairs, torch.stack(chosen_scores), torch.stack(rejected_scores)

    def _end(self, ids: Tensor) -> int:
        padding = (ids == self.pad_id).nonzero()
        return int(padding[0].item()) if len(padding) else len(ids)


def collate(pairs: list[dict[str, Any]], length: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 [2P, length]."""
    rows = [pair["chosen"] for pair in pairs] + [pair["rejected"] for pair in pairs]
    ids = torch.full((len(rows), length), pad_id)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def main() -> None:
    """Train with the settings in the job file, and save the model."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    start_processes()
    out = Path(job["output"])
    pairs = [json.loads(line) for line in Path(job["pairs"]).read_text(encoding="utf-8").splitlines()]
    model = RewardModel(job["base"], job["pad_id"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=job["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    config = {
        "train_micro_batch_size_per_gpu": job["pairs_per_step"],
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 0},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.train()
    for step in range(job["steps"]):
        for group in engine.optimizer.param_groups:
            group["lr"] = job["learning_rate"] * (1 - step / job["steps"])
        rows = pairs[step * job["pairs_per_step"] : (step + 1) * job["pairs_per_step"]]
        loss, chosen, rejected = engine(*collate(rows, job["max_length"], job["pad_id"]))
        end_loss = -functional.logsigmoid((chosen - rejected).detach()).mean()
        engine.backward(loss)
        engine.step()
        with (out / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"loss": loss.item(), "end_loss": end_loss.item()}) + "\n")
    torch.save(model.state_dict(), out / "model.pt")


if __name__ == "__main__":
    os.environ.setdefault("RANK", "0")
    main()
