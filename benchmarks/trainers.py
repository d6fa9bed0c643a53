"""Have the code of OpenRLHF and verl ask a server for rewards, as their trainers do, and compare these with its scores.

    python scripts/serve.py --model MODEL &
    pip install --no-deps --target peers openrlhf==0.11.2 verl==0.9.1 ray==2.55.0 tensordict==0.10.0 pyvers==0.2.3 \\
        torchdata==0.11.0 hydra-core==1.3.8 omegaconf==2.3.0 antlr4-python3-runtime==4.9.3 codetiming==1.4.0 \\
        pylatexenc==2.11
    PYTHONPATH=peers python benchmarks/trainers.py --model MODEL

What a GPU would generate is given: answers, as token ids. The functions that OpenRLHF and verl load are those of
docs/serving.md. Prints the largest difference for each way to ask; returns 1 if one is above 1e-5. Nothing of
rewardline is imported. MODEL needs a chat template, as rewardline exports one. TRL's trainers run in the tests.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import requests
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

URL = "http://127.0.0.1:8000"
ROWS = [
    {"prompt": [{"role": "user", "content": question}], "answer": answer}
    for question, answers in {
        "Ada has 3 apples and Ben has 4. How many are there?": ["There are 7.", "I do not know.", "7"],
        "Where does Ben live? Ben lives in Rome.": ["Ben lives in Rome.", "Ben lives in Oslo.\n\nOr in Rome?"],
    }.items()
    for answer in answers
]


def client(name: str, folder: str) -> str:
    """A file with the code of docs/serving.md that defines a function."""
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"def {name}(" in block]
    path = Path(folder) / f"{name}.py"
    path.write_text(code, encoding="utf-8")
    return str(path)


def openrlhf(tokenizer: PreTrainedTokenizerFast, source: str) -> list[float]:
    """The rewards of OpenRLHF's executor of single turns, which asks for one response at a time."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor([source])
    sampling = SimpleNamespace(max_tokens=128, logprobs=None)

    async def reward(row: dict[str, Any]) -> float:
        ids = tokenizer(row["answer"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]

        async def generate(*_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)])

        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        engine = SimpleNamespace(generate=generate)
        response = await executor.execute(prompt, "", sampling, 1024, tokenizer, engine)
        assert response["scores"] is not None, "see the log: the executor hides errors"
        return torch.tensor([response["reward"]]).item()

    async def every() -> list[float]:
        return await asyncio.gather(*map(reward, ROWS))

    return asyncio.run(every())


def verl(model: str, tokenizer: PreTrainedTokenizerFast, settings: list[str], router: str | None) -> list[float]:
    """The rewards of verl's reward loop: of its Ray workers, or with `router` those of one that asks a reward model."""
    from hydra import compose, initialize_config_module
    from verl import DataProto
    from verl.experimental.reward_loop.reward_loop import RewardLoopManager, RewardLoopWorker

    with initialize_config_module("verl.trainer.config", version_base=None):
        paths = [f"actor_rollout_ref.model.path={model}", f"reward.reward_model.model_path={model}"]
        config = compose("ppo_trainer", [*paths, "reward.num_workers=2", *settings])
    ids = [tokenizer(row["answer"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"] for row in ROWS]
    width = max(map(len, ids))
    responses = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    prompts = torch.ones(len(ids), 1, dtype=torch.long)
    mask = torch.cat([prompts, (torch.arange(width) < lengths[:, None]).long()], dim=1)
    columns = {
        "data_source": ["any"] * len(ids),
        "reward_model": [{"ground_truth": ""} for _ in ids],
        "extra_info": [{"prompt": row["prompt"]} for row in ROWS],
        "raw_prompt": [row["prompt"] for row in ROWS],
    }
    arrays = {name: np.fromiter(values, dtype=object, count=len(ids)) for name, values in columns.items()}
    tensors = {"prompts": prompts, "responses": responses, "attention_mask": mask}
    data = DataProto.from_dict(tensors, arrays)
    if router is None:
        found = RewardLoopManager(config).compute_rm_score(data).batch["rm_scores"]
        assert ((found != 0).sum(1) == 1).all()
        return found[torch.arange(len(ids)), lengths - 1].tolist()

    async def ask() -> list[dict[str, Any]]:
        return await RewardLoopWorker(config, router).compute_score_batch(data)

    return [result["reward_score"] for result in asyncio.run(ask())]


def main() -> int:
    """Compare the rewards."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", required=True, help="folder of the model that is served")
    args = options.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "REWARDLINE_TOKEN": "none"}
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    reply = requests.post(f"{URL}/score", json=ROWS, timeout=60)
    reply.raise_for_status()
    expected = [row["score"] for row in reply.json()]
    import ray

    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        function = f"reward.custom_reward_function.path={client('compute_score', folder)}"
        router = URL.removeprefix("http://")
        model = ["reward.reward_model.enable=true", "reward.reward_model.rollout.name=vllm"]
        ways: dict[str, Callable[[], list[float]]] = {
            "OpenRLHF, --reward.remote_url URL": lambda: openrlhf(tokenizer, f"{URL}/get_reward"),
            "OpenRLHF, --reward.remote_url FILE": lambda: openrlhf(tokenizer, client("reward_func", folder)),
            **{
                f"verl, reward manager {name}": lambda name=name: verl(
                    args.model, tokenizer, [function, f"reward.reward_manager.name={name}"], None
                )
                for name in ("naive", "dapo", "remote")
            },
            "verl, the address of a reward model": lambda: verl(args.model, tokenizer, model, router),
        }
        gaps = {}
        for name, rewards in ways.items():
            gaps[name] = max(abs(one - other) for one, other in zip(rewards(), expected, strict=True))
            print(f"{name}: {len(expected)} rewards, largest difference {gaps[name]:.1e}", flush=True)
    return int(max(gaps.values()) > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
