import copy
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.integrations import HfDeepSpeedConfig

from rewardline.core.errors import UserError
from rewardline.model.batch import collate
from rewardline.model.loading import (
    load_base,
    load_reward_model,
    older_rope,
    runs_in_transformers_4,
    save_reward_model,
)
from rewardline.model.packing import attention
from rewardline.model.reward_model import RewardModel
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.store import Comparison, ComparisonPair
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training.loss import pair_losses

from support.families import FAMILIES, MIXTURES, WINDOWED, Json
from support.models import comparisons, random_model

CPU = torch.device("cpu")


def gradient(model: RewardModel) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_every_verified_model_type_is_tested() -> None:
    assert set(FAMILIES) == attention.VERIFIED


@pytest.mark.parametrize(
    ("family", "changes"), [*((family, {}) for family in FAMILIES), *WINDOWED.items()], ids=lambda one: str(one)[:20]
)
def test_shared_prefixes_give_the_loss_scores_and_gradients_of_padded_rows(family: str, changes: Json) -> None:
    packed = random_model(family, **changes)
    padded = RewardModel(copy.deepcopy(packed.model), "padded")
    assert packed.batching == "shared_prefix"
    found = []
    for model in (packed, padded):
        batch = collate(comparisons(), model.batching, pad_id=0)
        scores = model(batch)
        loss = pair_losses(scores, batch).mean()
        torch.autograd.backward(loss)
        found.append((scores.detach(), loss.item(), gradient(model)))
    one, other = found
    assert torch.allclose(one[0], other[0], atol=1e-5, rtol=0)
    assert abs(one[1] - other[1]) < 1e-6
    assert (one[2] - other[2]).norm() / other[2].norm() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_plain_transformers(family: str) -> None:
    model = random_model(family)
    plain = copy.deepcopy(model.model)
    plain.set_attn_implementation("eager")
    rows = comparisons()
    scored = score_comparisons(model, iter(rows), device=CPU, pad_id=0, batch_tokens=64)
    for comparison, scores in scored:
        for tail, score in zip(comparison.tails, scores, strict=True):
            ids = torch.from_numpy(np.concatenate([comparison.prefix, tail]).astype(np.int64))[None]
            with torch.no_grad():
                assert abs(plain(input_ids=ids).logits.item() - score) < 1e-5


@pytest.mark.parametrize("batching", ["shared_prefix", "padded"])
def test_a_score_does_not_depend_on_batch_size_or_neighbours(batching: str) -> None:
    model = random_model("llama")
    if batching == "padded":
        model.batching = "padded"
        model.model.set_attn_implementation("sdpa")
    rows = comparisons(1) + comparisons(2)

    def scores(order: list[int], batch_tokens: int) -> dict[str, list[float]]:
        chosen = iter([rows[k] for k in order])
        found = score_comparisons(model, chosen, device=CPU, pad_id=0, batch_tokens=batch_tokens)
        return {c.prompt_id: s.tolist() for c, s in found}

    expected = scores(list(range(len(rows))), 10_000)
    for order, budget in (([*range(len(rows))], 1), ([*reversed(range(len(rows)))], 30), ([3], 7)):
        for prompt_id, found in scores(order, budget).items():
            assert found == pytest.approx(expected[prompt_id], abs=1e-5)


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = random_model("llama").train()
    checkpointed = RewardModel(copy.deepcopy(plain.model)).train()
    checkpointed.model.activation_checkpointing_enable({"use_reentrant": False})
    batch = collate(comparisons(), "shared_prefix", 0)
    for model in (plain, checkpointed):
        torch.autograd.backward(pair_losses(model(batch), batch).mean())
    assert torch.equal(gradient(plain), gradient(checkpointed))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_dropout_is_overridden_everywhere_or_left_as_it_is(base_models: Callable[..., Path], family: str) -> None:
    base = base_models(family)
    tokenizer = load_tokenizer(base)
    own, all_alike = (load_base(base, tokenizer, seed=0, dropout=rate) for rate in (None, 0.3))

    def rates(model: torch.nn.Module) -> list[float]:
        modules = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
        plain = [vars(m).get("dropout") for m in model.modules()] + [
            vars(m).get("attention_dropout") for m in model.modules()
        ]
        return modules + [rate for rate in plain if isinstance(rate, float)]

    assert rates(all_alike)
    assert set(rates(all_alike)) == {0.3}
    assert set(rates(own)) == {0.1 if family in ("gpt2", "opt") else 0.0} | ({0.0} if family == "opt" else set())


def test_models_that_cannot_share_prefixes_are_padded() -> None:
    for kind, reason in {"qwen3_next": "carry a state", "gemma2": "caps the logits", "bloom": "distances"}.items():
        assert reason in attention.PADDED[kind]
    values = {**FAMILIES["gemma"], "sliding_window": 8}
    values.pop("model_type")
    config = AutoConfig.for_model("gemma2", vocab_size=90, num_labels=1, pad_token_id=0, **values)
    assert RewardModel(AutoModelForSequenceClassification.from_config(config)).batching == "padded"
    encoder = AutoConfig.for_model(
        "bert", vocab_size=90, num_labels=1, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64,
    )  # fmt: skip
    model = RewardModel(AutoModelForSequenceClassification.from_config(encoder).eval())
    assert model.batching == "padded"
    rows = comparisons()
    first = {c.prompt_id: s for c, s in score_comparisons(model, iter(rows), device=CPU, pad_id=0, batch_tokens=1)}
    for comparison, scores in score_comparisons(model, iter(rows), device=CPU, pad_id=0, batch_tokens=500):
        assert np.allclose(scores, first[comparison.prompt_id], atol=1e-5)


@pytest.mark.parametrize("family", sorted(MIXTURES))
def test_the_router_loss_is_that_of_transformers_for_packed_and_padded_rows(family: str) -> None:
    base = random_model(family).model
    found = []
    for batching, checkpointing in (("padded", False), ("shared_prefix", False), ("shared_prefix", True)):
        model = RewardModel(copy.deepcopy(base), batching, max_length=64, router_coefficient=0.1).train()  # type: ignore[arg-type]
        assert model.batching == batching
        if checkpointing:
            model.model.activation_checkpointing_enable({"use_reentrant": False})
        batch = collate(comparisons(), batching, pad_id=0)
        model(batch)
        assert model.router_loss is not None
        torch.autograd.backward(model.router_loss)
        found.append((model.router_loss.item(), gradient(model)))
    config = copy.deepcopy(base.config)
    config._attn_implementation = "eager"
    language_model = AutoModelForCausalLM.from_config(config)
    language_model.base_model.load_state_dict(base.base_model.state_dict())
    batch = collate(comparisons(), "padded", pad_id=0)
    with torch.no_grad():
        plain = language_model(batch.input_ids, attention_mask=batch.attention_mask, output_router_logits=True).aux_loss
    for loss, gradients in found:
        assert loss == pytest.approx(plain.item(), abs=1e-6)
        assert (gradients - found[0][1]).norm() / found[0][1].norm() < 1e-5


def test_the_router_loss_is_there_where_it_is_asked_for() -> None:
    model, dense = random_model("mixtral").model, random_model("llama").model
    assert RewardModel(model, router_coefficient=None).router_coefficient == 0
    model.config.output_router_logits, model.config.router_aux_loss_coef = True, 0.02
    assert RewardModel(model, router_coefficient=None).router_coefficient == 0.02
    other = random_model("llama").model
    other.config.output_router_logits, other.config.router_aux_loss_coef = True, 0.02
    assert RewardModel(other, router_coefficient=None).router_coefficient == 0, "of a loss that is not there"
    assert RewardModel(model, router_coefficient=0.5).router_coefficient == 0.5
    scorer = RewardModel(model)
    assert scorer.router_coefficient == 0 and scorer.reads_some
    with pytest.raises(UserError, match=r"router_aux_loss_coef: llama has no router"):
        RewardModel(dense, router_coefficient=0.1)


def test_end_token_is_found_though_the_prompt_contains_end_and_padding_tokens() -> None:
    model = random_model("llama")
    pair = ComparisonPair("a", "d", "s", chosen=0, rejected=1)
    prefix = np.asarray([2, 0, 7, 2, 0], dtype=np.int32)
    tails = [np.asarray([8, 2], dtype=np.int32), np.asarray([9, 0, 2], dtype=np.int32)]
    comparison = Comparison("p", prefix, tails, [pair], 5)
    for batching in ("shared_prefix", "padded"):
        batch = collate([comparison], batching, pad_id=0)  # type: ignore[arg-type]
        assert batch.input_ids.flatten()[batch.ends].tolist() == [2, 2]
    _, scores = next(score_comparisons(model, iter([comparison]), device=CPU, pad_id=0))
    assert scores[0] != scores[1]


def test_scores_are_bit_equal_after_save_and_load(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    tokenizer = load_tokenizer(base)
    model = load_base(base, tokenizer, seed=3)
    save_reward_model(model, tokenizer, tmp_path / "m")
    loaded = load_reward_model(tmp_path / "m")
    rows = comparisons()
    before = [s.tolist() for _, s in score_comparisons(RewardModel(model), iter(rows), device=CPU, pad_id=0)]
    after = [s.tolist() for _, s in score_comparisons(RewardModel(loaded), iter(rows), device=CPU, pad_id=0)]
    assert before == after


def test_plain_transformers_score_a_padded_batch_alike(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    """With an end token that a base model also uses for padding, which plain transformers would skip."""
    base = tmp_path / "base"
    shutil.copytree(base_models("llama"), base)
    values = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**values, "pad_token": values["eos_token"]}))
    tokenizer = load_tokenizer(base)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    save_reward_model(load_base(base, tokenizer, seed=3), tokenizer, tmp_path / "m")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "m")
    end = reloaded.eos_token
    texts = [f"Human: hello{end}\n\nAssistant: yes{end}", f"Human: a longer text\n\nAssistant: no, never at all{end}"]
    together = reloaded(texts, return_tensors="pt", padding=True)
    model = RewardModel(load_reward_model(tmp_path / "m"))
    with torch.no_grad():
        batch_scores = plain(**together).logits[:, 0]
    for text, score in zip(texts, batch_scores, strict=True):
        ids = np.asarray(reloaded(text)["input_ids"], dtype=np.int32)
        comparison = Comparison("p", ids[:3], [ids[3:]], [], 3)
        _, own = next(score_comparisons(model, iter([comparison]), device=CPU, pad_id=reloaded.pad_token_id))
        assert abs(own[0] - score.item()) < 1e-5


def test_score_head_follows_the_seed(base_models: Callable[..., Path]) -> None:
    base = base_models("llama")
    tokenizer = load_tokenizer(base)
    heads = [load_base(base, tokenizer, seed=seed).score.weight.detach().clone() for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop", "1 weights are missing"),
        ("add", "1 weights are left over"),
        ("shape", "cannot be loaded|another shape"),
        ("head", "missing"),
        ("labels", "2 labels|another shape|cannot be loaded"),
        ("pickle", "cannot be loaded"),
    ],
)
def test_loading_is_strict(tmp_path: Path, base_models: Callable[..., Path], change: str, message: str) -> None:
    base = base_models("llama")
    tokenizer = load_tokenizer(base)
    folder = tmp_path / "m"
    save_reward_model(load_base(base, tokenizer, seed=3), tokenizer, folder)
    weights = load_file(folder / "model.safetensors")
    if change == "drop":
        del weights["model.layers.1.mlp.up_proj.weight"]
    elif change == "add":
        weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    elif change == "shape":
        weights["model.norm.weight"] = torch.zeros(7)
    elif change == "head":
        del weights["score.weight"]
    elif change == "labels":
        config = json.loads((folder / "config.json").read_text())
        labels = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
        (folder / "config.json").write_text(json.dumps({**config, **labels}))
        weights["score.weight"] = torch.zeros(2, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if change == "pickle":
        torch.save(weights, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=message):
        load_reward_model(folder)


@pytest.mark.usefixtures("one_process")
def test_weights_that_are_left_over_are_noticed_with_zero_3(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    base, folder = base_models("llama"), tmp_path / "m"
    tokenizer = load_tokenizer(base)
    save_reward_model(load_base(base, tokenizer, seed=3), tokenizer, folder)
    partitioned = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}})
    assert hasattr(load_base(base, tokenizer, seed=3).model.norm.weight, "ds_id")
    assert hasattr(load_reward_model(folder).model.norm.weight, "ds_id")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for load in (load_reward_model, partial(load_base, tokenizer=tokenizer, seed=0)):
        with pytest.raises(UserError, match="1 weights are left over"):
            load(folder)
    del partitioned


def test_base_model_with_missing_weights_is_refused(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    shutil.copytree(base_models("llama"), tmp_path / "b")
    weights = load_file(tmp_path / "b" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="missing"):
        load_base(tmp_path / "b", load_tokenizer(tmp_path / "b"), seed=0)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("bert", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}),
        ("distilbert", {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}),
    ],
)
def test_encoders_load_as_base_models_and_follow_the_seed(
    tmp_path: Path, base_models: Callable[..., Path], family: str, sizes: dict[str, int]
) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    states = [load_base(tmp_path, tokenizer, seed=seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])


def test_trained_reward_model_as_base_keeps_its_head(tmp_path: Path, base_models: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(base_models("llama"))
    trained = load_base(base_models("llama"), tokenizer, seed=3)
    save_reward_model(trained, tokenizer, tmp_path / "m")
    again = load_base(tmp_path / "m", tokenizer, seed=4)
    assert torch.equal(trained.score.weight, again.score.weight)


@pytest.mark.parametrize(
    ("family", "rope", "runs", "older"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 7.0}, True, {"rope_theta": 7.0}),
        (
            "llama",
            {"rope_type": "linear", "rope_theta": 7.0, "factor": 8.0},
            True,
            {"rope_theta": 7.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        (
            "gemma3_text",
            {
                "full_attention": {"rope_type": "linear", "rope_theta": 7.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3.0},
            },
            True,
            {"rope_theta": 7.0, "rope_local_base_freq": 3.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        (
            "phi3",
            {
                "rope_type": "longrope",
                "rope_theta": 7.0,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "original_max_position_embeddings": 64,
            },
            False,
            {"rope_theta": 7.0},
        ),
    ],
)
def test_rotary_embeddings_are_saved_by_their_older_names_too(
    tmp_path: Path, family: str, rope: Json, runs: bool, older: Json
) -> None:
    """The folders give equal scores in transformers 4.57 where `runs_in_transformers_4` says so."""
    options = {**FAMILIES[family], "rope_parameters": rope, "vocab_size": 20, "num_labels": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    model = AutoModelForSequenceClassification.from_config(config)
    assert runs_in_transformers_4(model) == runs
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert older.items() <= older_rope(saved).items()
    (tmp_path / "config.json").write_text(json.dumps({**saved, **older_rope(saved)}))
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == model.config.rope_parameters
