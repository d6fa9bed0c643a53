"""Reuse of finished training runs: a key of all that the weights depend on, and the model trained under that key."""

import logging
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rewardline.core.artifacts import MANIFEST, verify_files
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, link_or_copy
from rewardline.core.hashing import canonical, digest
from rewardline.core.locks import exclusive
from rewardline.core.provenance import code_digest
from rewardline.core.versions import versions
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.tokens.store import TokenManifest
from rewardline.training.processes.launcher import Nodes, Rendezvous, announce, join
from rewardline.training.records import loggers
from rewardline.training.records.model_card import model_card
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import NO_EFFECT, ROUNDING, TrainSettings

log = logging.getLogger(__name__)

NUMERICS = ("step.py", "held_out.py", "export.py")
"""The modules that decide the weights, with all that they import, but for `core`, which changes no result."""


def code_files() -> tuple[Path, ...]:
    """The programs whose code is part of the key."""
    return tuple(Path(__file__).with_name(name) for name in NUMERICS)


def training_key(settings: TrainSettings, tokens: Path, base: Path, without: Collection[str]) -> str:
    """A hash of what the weights depend on: settings but for some keys, tokens, base model, code and versions."""
    installed = versions()
    packages = ["torch", "deepspeed", "transformers", *(["peft"] if settings.training.lora else [])]
    manifest = TokenManifest.read(tokens / MANIFEST)
    files = BaseManifest.read(base / MANIFEST).files
    parts = {
        "settings": settings.model_dump(mode="json", exclude={"sweep": True, "training": set(without)}),
        "tokens": manifest.as_json(),
        "base": [file.model_dump() for file in files],
        "code": code_digest(*code_files(), without=("core",)),
        "versions": {name: installed[name] for name in packages},
    }
    return digest(canonical(parts))


def is_complete(model: Path, key: str) -> bool:
    """Whether a folder has a finished model that was trained under `key`, with the files that it was saved with."""
    path = model / "run.json"
    try:
        facts = RunFacts.read(path)
    except UserError:
        if model.exists():
            log.warning("%s is not complete; training again", model)
        return False
    if facts.key != key:
        log.info("%s was trained with other settings, inputs or code; training again", model)
        return False
    try:
        verify_files(path, repair=False)
    except UserError as error:
        log.warning("%s; training again", error)
        return False
    return True


def discard(model: Path) -> None:
    """Delete a model, if there is one."""
    (model / "run.json").unlink(missing_ok=True)  # first: without it, what a kill leaves of the rest is no model
    if model.exists():
        shutil.rmtree(model)


def publish(folder: Path, output: Path) -> None:
    """Publish the model of a run's folder with its card, and delete checkpoints and the folders of other keys."""
    model = folder / "model"
    with atomic_folder(output) as out:
        for path in filter(Path.is_file, model.rglob("*")):
            target = out / loggers.published_name(path.relative_to(model))
            target.parent.mkdir(parents=True, exist_ok=True)
            # Small files are copied, so that one of them can be damaged without its copy.
            (link_or_copy if path.suffix == ".safetensors" else shutil.copy2)(path, target)
        (out / "README.md").write_text(model_card(RunFacts.read(model / "run.json")), encoding="utf-8")
    for path in [*folder.iterdir(), *folder.parent.glob("*/")]:
        if path not in (model, folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class TrainingJob:
    """A training run: its settings and folders; `checkpoints` has a folder for each key, `trackers` is for loggers."""

    settings: TrainSettings
    tokens: Path
    base: Path
    checkpoints: Path
    trackers: Path

    @cached_property
    def key(self) -> str:
        """The key of the model."""
        return training_key(self.settings, self.tokens, self.base, NO_EFFECT)

    @cached_property
    def folder(self) -> Path:
        """The folder of its checkpoints, equal for runs that differ by rounding alone."""
        return self.checkpoints / training_key(self.settings, self.tokens, self.base, NO_EFFECT | ROUNDING)

    @property
    def tracked(self) -> loggers.TrackedRun:
        """What loggers are told."""
        run, seed, key = self.settings.run, self.settings.seed, self.folder.name
        facts = self.settings.as_json()
        return loggers.TrackedRun(run, seed, loggers.identity(run, key), facts, self.folder, self.trackers)

    def run(self, train: Callable[[Rendezvous], int], nodes: Nodes, output: Path) -> int:
        """Train on this node, unless the model is there already; the first node then publishes it to `output`.

        Returns the exit code that `train` returns, or 0.

        Raises:
            UserError: training failed.
        """
        path = self.checkpoints / "rendezvous.json"
        if nodes.index:
            announced = join(nodes, path)
            return 0 if announced is None else train(announced)
        loggers.check(self.settings.training.loggers)
        with exclusive(self.checkpoints.with_name(f".{self.checkpoints.name}.lock")):
            self.folder.mkdir(parents=True, exist_ok=True)
            done = is_complete(self.folder / "model", self.key)
            if not done:
                verify_files(self.base / MANIFEST)  # here once, and not by each process
            rendezvous = announce(nodes, path, needed=not done)
            if done:
                log.info("this training run is already done: its inputs, settings and code have not changed")
            else:
                discard(self.folder / "model")
                if code := train(rendezvous):
                    return code
            publish(self.folder, output)
        return 0
