"""Reuse of finished training runs: a key of all that the weights depend on, and the model trained under that key."""

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rewardline.core.artifacts import MANIFEST, verify_files, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, link_or_copy
from rewardline.core.hashing import canonical, digest
from rewardline.core.locks import exclusive
from rewardline.core.provenance import code_digest
from rewardline.core.versions import versions
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.tokens.store import TokenManifest
from rewardline.training.halving import RungResult, eliminated_at
from rewardline.training.processes.launcher import Nodes, Rendezvous, announce, join
from rewardline.training.records import loggers
from rewardline.training.records.model_card import model_card
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import NO_EFFECT, ROUNDING, TrainStageSettings

log = logging.getLogger(__name__)

NUMERICS = ("step.py", "held_out.py", "export.py")
"""The modules that decide the weights, with all that they import, but for `core`, which changes no result."""


def code_files() -> tuple[Path, ...]:
    """The programs whose code is part of the key."""
    return tuple(Path(__file__).with_name(name) for name in NUMERICS)


def training_key(
    settings: TrainStageSettings, tokens: Path, base: Path, without: Collection[str], eval_tokens: Iterable[Path] = ()
) -> str:
    """A hash of what the weights depend on: settings but for some keys, tokens, base model, code and versions."""
    installed = versions()
    packages = ["torch", "deepspeed", "transformers", *(["peft"] if settings.training.lora else [])]
    manifest = TokenManifest.read(tokens / MANIFEST)
    files = BaseManifest.read(base / MANIFEST).files
    parts = {
        "settings": settings.model_dump(mode="json", exclude={"sweep": True, "rung": True, "training": set(without)}),
        "tokens": manifest.as_json(),
        **{f"tokens {path.parent.name}": TokenManifest.read(path / MANIFEST).as_json() for path in eval_tokens},
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


def publish(folder: Path, output: Path, *, may_continue: bool = False) -> None:
    """Publish the model of a run's folder with its card, and delete checkpoints and the folders of other keys.

    Those of a run that `may_continue` stay, as do results of rungs.
    """
    model = folder / "model"
    with atomic_folder(output) as out:
        for path in filter(Path.is_file, model.rglob("*")):
            target = out / loggers.published_name(path.relative_to(model))
            target.parent.mkdir(parents=True, exist_ok=True)
            # Small files are copied, so that one of them can be damaged without its copy.
            (link_or_copy if path.suffix == ".safetensors" else shutil.copy2)(path, target)
        (out / "README.md").write_text(model_card(RunFacts.read(model / "run.json")), encoding="utf-8")
    kept = {model, folder, *(folder.iterdir() if may_continue else folder.glob("rung-*.json"))}
    for path in [*folder.iterdir(), *folder.parent.glob("*/")]:
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class TrainingJob:
    """A training run, to its end or to a rung: its settings and folders.

    `checkpoints` has a folder for each key, `trackers` is for loggers; `rungs` are the files of the earlier rungs of
    its sweep, which may have eliminated it, and `eval_tokens` the tokens of other evaluation sets, by name.
    """

    settings: TrainStageSettings
    tokens: Path
    base: Path
    checkpoints: Path
    trackers: Path
    rungs: Sequence[Path] = ()
    eval_tokens: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def eliminated_at(self) -> int | None:
        """The step of the rung that has eliminated the run, if one has."""
        return eliminated_at(self.settings.run, self.rungs)

    @property
    def until(self) -> int | None:
        """The step after which training stops before its end, if it does."""
        return self.eliminated_at if self.settings.rung is None else self.settings.rung.step

    @property
    def result(self) -> Path:
        """The file for the result of its rung."""
        return self.folder / f"rung-{self.until or 0:08d}.json"

    @cached_property
    def key(self) -> str:
        """The key of the model, or of the result of a rung."""
        key = self._key(NO_EFFECT)
        share = self.settings.rung.share if self.settings.rung else None
        return key if self.until is None else digest(canonical([key, self.until, share]))

    @cached_property
    def folder(self) -> Path:
        """The folder of its checkpoints, equal for runs that differ by rounding alone."""
        return self.checkpoints / self._key(NO_EFFECT | ROUNDING)

    def _key(self, without: Collection[str]) -> str:
        return training_key(self.settings, self.tokens, self.base, without, self.eval_tokens.values())

    @property
    def tracked(self) -> loggers.TrackedRun:
        """What loggers record."""
        run, seed, key = self.settings.run, self.settings.seed, self.folder.name
        facts = self.settings.replace(rung=None).as_json()
        return loggers.TrackedRun(run, seed, loggers.identity(run, key), facts, self.folder, self.trackers)

    def run(self, train: Callable[[Rendezvous], int], nodes: Nodes, output: Path) -> int:
        """Train on this node, unless that is done; the first node then publishes the model to the folder `output`.

        For a rung, its result goes to the file `output`.

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
            done = self._is_done()
            if not done:
                verify_files(self.base / MANIFEST)  # here once, and not by each process
            rendezvous = announce(nodes, path, needed=not done)
            if done:
                log.info("this training run is already done: its inputs, settings and code have not changed")
            else:
                if self.settings.rung is None:
                    discard(self.folder / "model")
                if code := train(rendezvous):
                    return code
            if self.settings.rung is None:
                publish(self.folder, output, may_continue=self.eliminated_at is not None)
            else:
                self._publish_result(output)
        return 0

    def _is_done(self) -> bool:
        if self.settings.rung is None:
            return is_complete(self.folder / "model", self.key)
        if self.eliminated_at is not None:
            return True
        try:
            return self.result.exists() and RungResult.read(self.result).key == self.key
        except UserError as error:
            log.warning("%s; scoring again", error)
            return False

    def write_result(self, pairs: int = 0, accuracy: float | None = None, diverged: str | None = None) -> None:
        """Write the result of the rung: the accuracy over some held-out pairs, or how the training has diverged."""
        common = {"run": self.settings.run, "key": self.key, "step": self.until or 0}
        result = RungResult.model_validate({**common, "pairs": pairs, "accuracy": accuracy, "diverged": diverged})
        write_sealed(self.result, result.as_json())

    def _publish_result(self, output: Path) -> None:
        if self.eliminated_at is not None:
            log.info("eliminated after step %d: it is not trained further", self.eliminated_at)
            result = RungResult(run=self.settings.run, key=self.key, step=self.until or 0)
        else:
            result = RungResult.read(self.result)
        write_sealed(output, result.as_json(), depth=1)
