"""TRL's RewardTrainer, for the pairs of benchmarks/train.py and benchmarks/quality: python trl_reward.py JOB.json

After an interruption, the same command continues from the last checkpoint, if the job has `save_steps`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import RewardConfig, RewardTrainer


class Recorded(RewardTrainer):
    """A RewardTrainer that writes a line with the unrounded loss of each step."""

    log_path: Path

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a step; a step has one batch."""
        self._loss = super().compute_loss(*args, **kwargs)
        return self._loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Forward and backward pass."""
        self._flush()
        result = super().training_step(*args, **kwargs)
        self._waiting = True
        return result

    _waiting = False

    def _flush(self) -> None:
        """Write the line of the previous step, whose update is complete."""
        if self._waiting:
            with self.log_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"loss": float(self._loss.detach())}) + "\n")
            self._waiting = False


def main() -> None:
    """Train with the settings in the job file, and save the model."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    out = Path(job["output"])
    pairs = [json.loads(line) for line in Path(job["pairs"]).read_text(encoding="utf-8").splitlines()]
    config = RewardConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=job.get("bf16", False),
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=job["pairs_per_step"],
        max_steps=job["steps"],
        max_length=job["max_length"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type=job.get("schedule", "linear"),
        warmup_steps=job.get("warmup_steps", 0),
        weight_decay=job.get("weight_decay", 0.0),
        adam_beta2=0.95,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",
        save_strategy="steps" if job.get("save_steps") else "no",
        save_steps=job.get("save_steps", 500),
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    data = Dataset.from_list([{"chosen_ids": pair["chosen"], "rejected_ids": pair["rejected"]} for pair in pairs])
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    trainer = Recorded(model=job["base"], args=config, train_dataset=data, processing_class=tokenizer)
    trainer.log_path = out / "log.jsonl"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if job.get("save_steps") else None)
    trainer._flush()
    trainer.save_model(str(out / "model"))


if __name__ == "__main__":
    main()
