"""When a training run is repeated: if its key has changed, or its model is not complete; and what the key covers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewardline.core.artifacts import write_manifest, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.provenance import program_files
from rewardline.tokens.base_manifest import BaseFile, BaseManifest
from rewardline.training import reuse
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import NO_EFFECT, TrainStageSettings

from support.paths import SCRIPTS
from support.tokens import write_token_manifest
from support.training_runs import run_facts, training_settings

LIBRARY = SCRIPTS / "rewardline"
Json = dict[str, Any]


def covered() -> set[str]:
    """The modules of the library that are part of the key."""
    files = {path for program in reuse.code_files() for path in program_files(program)}
    names = {path.relative_to(LIBRARY).as_posix() for path in files}
    return {name for name in names if not name.startswith("core/")}


def test_the_key_covers_exactly_what_changes_weights() -> None:
    names = covered()
    training = {name.removeprefix("training/") for name in names if name.startswith("training/")}
    assert training == {
        *("__init__.py", "step.py", "held_out.py", "early_stopping.py", "export.py", "batching.py", "loss.py"),
        "length_control.py",
        *("schedule.py", "engine.py", "deepspeed_options.py", "settings.py"),
        *("processes/__init__.py", "processes/collectives.py"),
    }
    assert {name.partition("/")[0] for name in names} == {"__init__.py", "data", "model", "tokens", "training"}
    assert {name for name in names if name.startswith("data/")} == {
        *("data/__init__.py", "data/schema.py"),
        *("data/pairs/__init__.py", "data/pairs/identity.py"),  # which held-out prompts choose
    }
    modules = {"reward_model", "batch", "score_positions", "normalization", "lora", "settings"}
    assert {f"model/{name}.py" for name in modules} < names
    assert {
        f"model/packing/{name}.py" for name in ("attention", "blocks", "kernels", "layout", "flex", "varlen")
    } < names
    assert "tokens/store.py" in names


def test_every_program_of_the_key_is_needed() -> None:
    """None is part of another one, so that each adds something of its own."""
    programs = reuse.code_files()
    assert all(path.is_file() for path in programs)
    for program in programs:
        assert not any(program in program_files(other) for other in programs if other != program), program


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "c" / "k" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    facts = run_facts(key="a", weights=folder / "model.safetensors")
    write_sealed(folder / "run.json", facts.as_json(), ["config.json", "model.safetensors"])
    return folder


def test_a_model_under_the_same_key_is_complete(model: Path) -> None:
    assert reuse.is_complete(model, "a")


def other_key(_: Path) -> None:
    """The model is as it was, and the key is another."""


def damage(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"weight")


def lose_facts(model: Path) -> None:
    (model / "run.json").unlink()


def lose_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


@pytest.mark.parametrize("change", [other_key, damage, lose_facts, lose_weights, shutil.rmtree])
def test_any_other_is_not_and_nothing_is_deleted_before_it_is_discarded(
    model: Path, change: Callable[[Path], None]
) -> None:
    change(model)
    before = sorted(model.rglob("*"))
    assert not reuse.is_complete(model, "b" if change is other_key else "a")
    assert sorted(model.rglob("*")) == before
    reuse.discard(model)
    assert not model.exists()


def test_a_model_that_cannot_be_discarded_ends_the_program_and_is_complete_no_more(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(folder: Path) -> None:
        (folder / "config.json").unlink()
        raise OSError("busy")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        with pytest.raises(OSError, match="busy"):
            reuse.discard(model)
    assert not reuse.is_complete(model, "a"), "it lacks its config.json"


def test_publishing_adds_the_card_and_deletes_what_is_no_longer_needed(model: Path, tmp_path: Path) -> None:
    (model / "adapter").mkdir()
    (model / "adapter" / "x").write_text("x")
    (model.parent / "step-00000001").mkdir()
    (model.parent / "log.jsonl").write_text("")
    (tmp_path / "c" / "other").mkdir()
    reuse.publish(model.parent, tmp_path / "out")
    assert [path.name for path in (tmp_path / "c").rglob("*") if path.parent in (tmp_path / "c", model.parent)] == [
        "k",
        "model",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("README.md", "adapter", "config.json", "model.safetensors", "run.json"),
    }
    assert (tmp_path / "out" / "adapter" / "x").read_text() == "x"
    facts = RunFacts.model_validate_json((tmp_path / "out" / "run.json").read_text())
    assert f"# {facts.run}" in (tmp_path / "out" / "README.md").read_text()


def test_the_key_covers_settings_and_content_of_the_inputs(tmp_path: Path) -> None:
    tokens, base = tmp_path / "tokens", tmp_path / "base"
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training_settings())

    def key(settings: TrainStageSettings = settings, length: int = 8, base_hash: str = "h") -> str:
        for folder in (tokens, base):
            folder.mkdir(exist_ok=True)
        write_token_manifest(tokens, max_length=length)
        file = BaseFile(file="model.safetensors", sha256=base_hash)
        facts: Json = {
            "source": {},
            "revision": None,
            "model_type": "llama",
            "vocabulary": 90,
            "positions": 64,
            "notes": [],
        }
        write_manifest(base, BaseManifest.model_validate({**facts, "files": [file]}))
        return reuse.training_key(settings, tokens, base, NO_EFFECT)

    first = key()
    assert key(settings.replace(training=training_settings(loggers=[], checkpoint_every=1))) == first
    assert len({first, key(length=9), key(base_hash="i"), key(settings.replace(seed=2))}) == 4
    precise, rounded = (settings.replace(training=training_settings(**o)) for o in ({"zero_stage": 2}, {"epochs": 2}))
    assert len({first, key(precise), key(rounded)}) == 3
    job = reuse.TrainingJob(settings, tokens, base, tmp_path / "c", tmp_path)
    assert job.folder == reuse.TrainingJob(precise, tokens, base, tmp_path / "c", tmp_path).folder
    assert job.folder != reuse.TrainingJob(rounded, tokens, base, tmp_path / "c", tmp_path).folder


@pytest.mark.parametrize("replaced", ["tokens", "base"])
def test_a_manifest_of_another_folder_is_named(tokens: Path, base: Path, replaced: str) -> None:
    manifest, other = (
        folder / "manifest.json" for folder in ((tokens, base) if replaced == "tokens" else (base, tokens))
    )
    content = manifest.read_bytes()
    shutil.copy(other, manifest)
    settings = TrainStageSettings(run="r", mixture="m", model="x", seed=1, training=training_settings())
    with pytest.raises(UserError, match=rf"{manifest} is damaged \(it is a copy of .*snakemake"):
        reuse.training_key(settings, tokens, base, NO_EFFECT)
    manifest.write_bytes(content)


def test_other_threads_are_another_model_and_resume_the_same_training(tokens: Path, base: Path, tmp_path: Path) -> None:
    jobs = []
    for threads in (1, 2):
        settings = {"run": "r", "mixture": "m", "model": "x", "seed": 1, "training": {"threads": threads}}
        jobs.append(reuse.TrainingJob(TrainStageSettings.model_validate(settings), tokens, base, tmp_path, tmp_path))
    assert jobs[0].key != jobs[1].key
    assert jobs[0].folder == jobs[1].folder
