"""The engine: the configuration that DeepSpeed gets, and that its steps are those of plain AdamW."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, DeepSpeedConfig
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig, DeepSpeedZeroOffloadParamConfig
from pydantic import BaseModel

from rewardline.core.cli import log
from rewardline.core.errors import UserError
from rewardline.training import deepspeed_options as options
from rewardline.training import engine
from rewardline.training.deepspeed_options import find_problems

from support.engines import new_engine, steps
from support.models import random_model
from support.paths import ROOT
from support.training_runs import training_settings

Json = dict[str, Any]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_steps_are_those_of_adamw_with_decay_of_matrices_alone(stage: int) -> None:
    chosen: Json = {"betas": [0.5, 0.7], "eps": 1e-3, "weight_decay": 0.3, "learning_rate": 1e-2, "clip": 0.05}
    running = new_engine(training_settings(zero_stage=stage, **chosen))
    plain = random_model("llama").model
    plain.set_attn_implementation("sdpa")
    matrices = [p for p in plain.parameters() if p.ndim == 2]
    vectors = [p for p in plain.parameters() if p.ndim == 1]
    assert matrices
    assert vectors
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.5, 0.7), eps=1e-3)
    for step in range(3):
        ids = torch.randint(5, 90, (4, 12), generator=torch.Generator().manual_seed(step))
        torch.autograd.backward(plain(input_ids=ids).logits.square().mean())
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        assert norm > 0.05, "clipping matters"
        optimizer.step()
        optimizer.zero_grad()
    steps(running, 0, 3, clip=0.05)
    found = engine.full_state(running.module)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(found[name], parameter, atol=2e-6), name


def test_own_settings_are_merged_and_what_they_replace_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log, "propagate", True)
    own = {
        "zero_optimization": {"overlap_comm": True, "offload_optimizer": {"pin_memory": False}},
        "bf16": {"check_grad_overflow": False},
        "steps_per_print": 5,
        "wall_clock_breakdown": True,
    }
    options = {"zero_stage": 2, "offload": "optimizer", "precision": "bf16", "clip": 0.5}
    config = engine.deepspeed_config(training_settings(**options, deepspeed=own))
    assert config["zero_optimization"] == {
        "stage": 2, "overlap_comm": True, "offload_optimizer": {"device": "cpu", "pin_memory": False},
    }  # fmt: skip
    assert config["bf16"] == {"enabled": True, "check_grad_overflow": False}
    assert (config["steps_per_print"], config["wall_clock_breakdown"], config["gradient_clipping"]) == (5, True, 0.5)
    messages = {record.getMessage() for record in caplog.records}
    assert messages == {"training.deepspeed.steps_per_print: 5 replaces 1000000000"}


@pytest.mark.parametrize(
    ("own", "offload", "message"),
    [
        ({"zero_optimization": {"stage": 3}}, "none", "zero_optimization.stage: is decided by training.zero_stage"),
        ({"optimizer": {"type": "Adam"}}, "none", "optimizer: is decided by training.learning_rate, betas, eps"),
        ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, "optimizer", "device: is decided by"),
        ({"zero_optimization": {"offload_optimizer": {"nvme_path": "/x"}}}, "optimizer", "nvme_path: state on NVMe"),
        ({"zero_optimization": {"offload_optimizer": None}}, "optimizer", "offload_optimizer: is decided by"),
        (
            {"zero_optimization": {"offload_param": {"pin_memory": True}}},
            "optimizer",
            "no effect with training.offload",
        ),
        ({"zero_optimization": {"offload_param": {"pin_memory": True}}}, "all", None),
        ({"zero_optimization": {"offload_optimizer": {"pin_memory": True}}}, "all", None),
        ({"fp16": {"initial_scale_power": 8}, "train_batch_size": 8}, "none", "train_batch_size: is decided by"),
        ({"torch_autocast": {"enabled": True}}, "none", "torch_autocast: is decided by training.precision"),
        ({"zero_optimizatoin": {}}, "none", "no effect here; did you mean zero_optimization?"),
        ({"activation_checkpointing": {"cpu_checkpointing": True}}, "none", "by training.gradient_checkpointing"),
        ({"compile": {"deepcompile": True}}, "none", "compile: is DeepSpeed's DeepCompile"),
        ({"checkpoint": {"load_universal": True}}, "none", "checkpoint: checkpoints and exports are not DeepSpeed's"),
        ({"tensor_parallel": {"autotp_size": 2}}, "none", "tensor_parallel: only data parallelism"),
        ({"zero_optimization": {"round_robin_gradients": True}}, "none", "training.zero_stage 3; expected 1 or 2"),
        ({"zero_optimization": {"stage3_max_live_parameters": 1000}}, "none", None),
        ({"bf16": {"check_grad_overflow": False}}, "none", "training.precision fp16; expected bf16"),
        ({"fp16": {"auto_cast": True}}, "none", "fp16.auto_cast: casts inputs"),
        ({"fp16": {"loss_scale": 128.0, "hysteresis": 1}}, "none", None),
        ({"data_types": {"grad_acum_dtype": "fp32"}}, "none", "did you mean grad_accum_dtype?"),
        ({"timers": {"throughput": {"enabled": False}}}, "none", None),
    ],
)
def test_settings_that_contradict_the_configuration_are_named(own: Json, offload: str, message: str | None) -> None:
    training = training_settings(zero_stage=3, precision="fp16", offload=offload, deepspeed=own)
    found = list(find_problems(training))
    if message is None:
        assert found == []
        return
    assert len(found) == 1
    assert message in found[0]
    with pytest.raises(UserError, match=r"training\.deepspeed"):
        engine.deepspeed_config(training)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"zero_optimization": {"overlap_com": True}}, "overlap_com Extra inputs are not permitted"),
        ({"wall_clock_breakdown": True, "data_types": {"grad_accum_dtype": "fp31"}}, "fp31"),
        ({"prescale_gradients": True}, "pre-scale gradients is not yet supported"),
    ],
)
def test_what_deepspeed_does_not_take_is_a_message(own: Json, message: str) -> None:
    with pytest.raises(UserError, match=rf"training\.deepspeed: DeepSpeed does not take it: .*{message}"):
        new_engine(training_settings(zero_stage=2, deepspeed=own))


def test_mkl_takes_no_fewer_threads_than_torch_has() -> None:
    library = str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
    if not hasattr(ctypes.CDLL(library), "mkl_serv_get_dynamic"):
        pytest.skip("torch without MKL")
    program = f"""
import ctypes
from rewardline.model.threads import start_threads
start_threads()
print(ctypes.CDLL({library!r}).mkl_serv_get_dynamic())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


class Asked(dict[str, Any]):
    """A configuration that notes which keys are asked for."""

    def __init__(self, content: Json, names: set[str], prefix: str = "") -> None:
        super().__init__(content)
        self.names, self.prefix = names, prefix

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(self.prefix + key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.names.add(f"{self.prefix}{key}")
        return super().__contains__(key)

    def keys(self) -> Any:
        return self

    def __copy__(self) -> "Asked":
        return self


def keys_of(model: type[BaseModel], prefix: str) -> set[str]:
    aliases = {field.alias for field in model.model_fields.values() if field.alias}
    return {prefix + name for name in (*model.model_fields, *aliases)}


@pytest.mark.usefixtures("one_process")
def test_every_key_that_deepspeed_reads_works_or_is_refused_with_a_reason() -> None:
    """A key that a new version of DeepSpeed reads shows up here."""
    asked: set[str] = set()
    content: Json = {"train_batch_size": 1}
    DeepSpeedConfig(Asked(content | {name: Asked({}, asked, f"{name}.") for name in options.SECTIONS}, asked))
    read = asked - set(_REMOVED_TOP_LEVEL_CONFIG_KEYS)
    assert "zero_optimization" in read and "data_types.param_dtype" in read
    read |= keys_of(DeepSpeedBF16Config, "bf16.") | keys_of(DeepSpeedFP16Config, "fp16.")
    read |= keys_of(DeepSpeedZeroConfig, "zero_optimization.")
    read |= keys_of(DeepSpeedZeroOffloadOptimizerConfig, "zero_optimization.offload_optimizer.")
    read |= keys_of(DeepSpeedZeroOffloadParamConfig, "zero_optimization.offload_param.")
    tables = [
        set(options.OWNED),
        set(options.REFUSED),
        set(options.FREE),
        {name for name in options.NEEDED if "." in name},
        {f"{section}.{key}" for section, names in options.SECTIONS.items() for key in names},
        {f"zero_optimization.offload_{kind}.pin_memory" for kind in ("optimizer", "param")},
    ]
    assert not {name for name in read if sum(name in table for table in tables) != 1}
    assert set(options.OWNED) | set(options.FREE) <= read
    assert {f"zero_optimization.{key}" for key in options.ZERO_STAGES} <= read
