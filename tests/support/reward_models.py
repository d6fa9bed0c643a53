"""Small reward models with a tokenizer, in folders as anyone may have them; and the ways by which text reaches them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from rewardline.model.loading import load_base, save_reward_model
from rewardline.scoring.rows import columns, parse_row
from rewardline.scoring.server.batcher import FullText, TokenIds
from rewardline.scoring.server.protocols import ParsedRequest, openrlhf, rows, vllm_classify
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.encoder import ConversationEncoder, EncodedAnswers
from rewardline.tokens.store import Comparison
from rewardline.tokens.templates import TemplateRefusedError
from rewardline.tokens.tokenizer import load_tokenizer, save_tokenizer, set_end_token

Json = dict[str, Any]


def reward_model(base: Path, folder: Path, seed: int = 0) -> PreTrainedModel:
    """A base model with a score head whose scores spread, saved as a plain sequence classifier."""
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer, seed=seed).eval()
    with torch.no_grad():
        model.get_submodule("score").weight.normal_(generator=torch.Generator().manual_seed(seed))
    save_reward_model(model, tokenizer, folder)
    return model


def deepspeed_chat(
    base: Path, folder: Path, name: str = "rwtransformer", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, torch.Tensor]:
    """A folder as the second step of DeepSpeed-Chat leaves it; returns its transformer and its value head [1, size]."""
    folder.mkdir()
    model = AutoModel.from_pretrained(base).to(dtype).eval()
    size = getattr(model.config, "word_embed_proj_dim", model.config.hidden_size)
    head = torch.randn(1, size, generator=torch.Generator().manual_seed(1)).to(dtype)
    weights = {f"{name}.{key}": value.clone() for key, value in model.state_dict().items()}
    torch.save({**weights, "v_head.weight": head}, folder / "pytorch_model.bin")
    config = {**model.config.to_dict(), "_name_or_path": str(base)}
    (folder / "config.json").write_text(json.dumps(config))
    return model, head


LENGTH = 2000


class Doors:
    """A tokenizer in training, and the exported model at each other door."""

    def __init__(self, base: Path, folder: Path, template: str | None, **options: Any) -> None:
        """`template`: a chat template, None for plain text; `options`: of `ConversationEncoder`."""
        tokenizer = load_tokenizer(base)
        chosen: Json = {"template": "chat", "chat_template": template} if template else {"template": "plain"}
        self.training = ConversationEncoder(tokenizer, max_length=LENGTH, **chosen, **options)
        exported = load_tokenizer(base)
        end = tokenizer.convert_ids_to_tokens(self.training.end_id)
        set_end_token(exported, end)
        exported.chat_template = self.training.export_template()
        reward_model(base, folder)
        save_tokenizer(exported, folder)
        tokenization = {"template": self.training.template, "max_length": LENGTH, "end_token": end}
        (folder / "run.json").write_text(json.dumps({"tokenization": tokenization}))
        self.scorers = [Scorer(str(folder))]
        (folder / "run.json").unlink()  # as of a copy by hand, or after more training with TRL
        self.scorers.append(Scorer(str(folder)))
        self.plain = AutoTokenizer.from_pretrained(folder)

    def check(self, messages: list[Json], **inputs: Any) -> list[int] | None:
        """Every door gives a conversation the same tokens; those of text endpoints where no text is a special token.

        `inputs`: `tools` and `chat_template_kwargs`. The tokens are returned, None if the template refuses it.
        """
        read = parse_row({"messages": messages, **inputs})
        (expected,) = self.training.encode(*columns([read]))
        if isinstance(expected, TemplateRefusedError):
            return None
        assert isinstance(expected, EncodedAnswers)
        ids: list[int] = expected.sequences[0].tolist()
        given = {"tools": inputs.get("tools") or None, **inputs.get("chat_template_kwargs", {})}
        text = self.plain.apply_chat_template(messages, tokenize=False, **given)
        assert self.plain(text, add_special_tokens=False)["input_ids"] == ids
        assert self.plain.apply_chat_template(messages, **given)["input_ids"] == ids
        assert "<|im_end|>\n" not in text[-12:]
        assert not expected.truncated_tokens
        assert ids[-1] == self.training.end_id == self.plain.eos_token_id
        for scorer in self.scorers:
            (scored,) = scorer.encode(*columns([read]))
            assert _ids(scored) == ids
        bodies: list[Json] = [{"messages": messages, **inputs}]
        if messages[-1]["role"] == "assistant" and messages[-1].keys() == {"role", "content"}:
            bodies.append({"prompt": messages[:-1], "answer": messages[-1]["content"], **inputs})
        for body in bodies:
            (item,) = rows(body, "m").items
            assert item == read
        (item,) = vllm_classify(bodies[0], "m").items
        assert item == read
        if messages[-1]["role"] != "assistant":
            return ids  # a complete text is one of an answer
        texts: list[tuple[Callable[..., ParsedRequest], Json]] = [
            (openrlhf, {"query": [f"{text}\n"]}),
            (openrlhf, {"query": [f"<|pad|>{text}{self.plain.eos_token * 2}<|pad|>"]}),
            (vllm_classify, {"input": text}),
            (vllm_classify, {"input": text.removesuffix(self.plain.eos_token)}),
        ]
        for protocol, complete in texts:
            (full,) = protocol(complete, "m").items
            assert isinstance(full, FullText)
            for scorer in self.scorers:
                (encoded,) = scorer.encode_texts([full.text], full.ended)
                assert _ids(encoded) == ids
        pad, end = self.plain.pad_token_id, self.training.end_id
        for sent in (ids, ids[:-1], [pad, *ids, end, pad, pad]):  # as encoded, cut off, padded by a policy's trainer
            (item,) = vllm_classify({"input": [*sent]}, "m").items
            assert isinstance(item, TokenIds)
            for scorer in self.scorers:
                (encoded,) = scorer.encode_ids([item.ids])
                assert _ids(encoded) == ids
        return ids


def _ids(item: object) -> list[int]:
    assert isinstance(item, Comparison), item
    found: list[int] = np.concatenate([item.prefix, item.tails[0]]).tolist()
    return found
