"""What is published of a trained model: a folder for the hub, with a card whose metadata has all results."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, save_torch_state_dict
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from safetensors.torch import load_file

from rewardline.core.artifacts import MANIFEST, read_manifest, verify_model, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.files import link_or_copy
from rewardline.core.hub import TIMEOUT
from rewardline.core.locks import exclusive
from rewardline.core.settings import JsonObject
from rewardline.evaluation.choices import ChosenRun
from rewardline.evaluation.results import Accuracy, EvaluationResult, read_results
from rewardline.evaluation.settings import HELD_OUT
from rewardline.model.folder import check_folder
from rewardline.training.records.run_facts import RunFacts

log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
REPLACED = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "chat_template*", "tensorboard/*")
"""Files of an earlier model that would be read instead of, or beside, those of this one."""
UNKNOWN = "unknown"
"""The hub's name of a license that nobody has stated."""


@dataclass(frozen=True)
class Publication:
    """A trained model on its way to the repository `repo`.

    `license`, `base_model` and `datasets` are names on the hub. Unless given, the last two come from the folder of
    results that the model is in, and the license is that of the base model.
    """

    model: Path
    repo: str
    license: str | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()

    @cached_property
    def facts(self) -> RunFacts:
        """The model's run.json; a `UserError` where it is no complete model that rewardline trained."""
        check_folder(self.model)
        path = self.model / "run.json"
        if not path.is_file() or not (self.model / "README.md").is_file():
            raise UserError(f"{self.model}: has no run.json and README.md; name a model as training leaves it")
        verify_model(self.model, repair=False)
        facts = RunFacts.read(path)
        if facts.diverged is not None:
            raise UserError(f"{self.model} has no weights: its training has diverged ({facts.diverged})")
        return facts

    @cached_property
    def results(self) -> list[EvaluationResult]:
        """The evaluations of the model, from `evals/` of its folder of results."""
        paths = [] if self._root is None else sorted((self._root / "evals" / self.facts.run).glob("*/metrics.json"))
        own = (self.facts.run, self.facts.seed)
        results = [one for one in read_results(paths) if (one.run, one.seed) == own and (one.n or not one.ratings)]
        if not results:
            log.warning("%s: no evaluations of %s were found; the card has no results", self.model, self.facts.run)
        return results

    @cached_property
    def _root(self) -> Path | None:
        """The folder of results; a chosen model may have another name than the run that trained it."""
        parents = self.model.resolve().parents
        return next((folder for folder in parents if (folder / "evals" / self.facts.run).is_dir()), None)

    def _manifest(self, *place: str) -> JsonObject:
        """A manifest of the folder of results; empty where it is missing."""
        path = self._root.joinpath(*place) if self._root is not None else None
        content: JsonObject = read_manifest(path, repair=False) if path is not None and path.is_file() else {}
        return content

    def _hub_dataset(self, name: str) -> tuple[str | None, JsonObject]:
        """The name on the hub of a dataset or benchmark, and where its rows are there; None for one from elsewhere."""
        manifest = self._manifest("data", name, MANIFEST)
        source = manifest.get("source")
        if not isinstance(source, dict) or not isinstance(source.get("hub"), str):
            return None, {}
        place = {key: source[key] for key in ("config", "split") if source.get(key)}
        return str(source["hub"]), {**place, "revision": manifest.get("revision")}

    def _base_model(self) -> str | None:
        manifest = self._manifest("base", self.facts.model, MANIFEST)
        source = manifest.get("source")
        on_hub = isinstance(source, dict) and manifest.get("revision")
        return self.base_model or (str(source["path"]) if on_hub and isinstance(source, dict) else None)

    def _datasets(self) -> list[str]:
        used = self._manifest("pairs", self.facts.mixture, "stats.json").get("by_dataset")
        names = [self._hub_dataset(name)[0] for name in used] if isinstance(used, dict) else []
        return list(self.datasets) or list(dict.fromkeys(filter(None, names)))

    def _license(self, base: str | None) -> str:
        """That of the base model unless another is given."""
        stated: object = self.license
        if stated is None and base is not None:
            with suppress(HTTPError, OfflineModeIsEnabled, OSError):
                card = HfApi().model_info(base, timeout=TIMEOUT).card_data
                stated = card.get("license") if card else None
        if not isinstance(stated, str):
            log.warning("no license is known: the card says `%s`; state one with --license", UNKNOWN)
        return stated if isinstance(stated, str) else UNKNOWN

    def _figures(self) -> Iterator[EvalResult]:
        """Accuracy with its 95% interval on each benchmark, and the overall score of a published one.

        Where `select` has chosen the model, those on the pairs that did not choose it.
        """
        path = self.model / "selection.json"
        choice = ChosenRun.read(path) if path.is_file() else None
        for one in self.results:
            held_out = one.benchmark == HELD_OUT
            name, place = (None, {}) if held_out else self._hub_dataset(one.benchmark)
            title = f"held-out split of {one.mixture}" if held_out else one.benchmark
            has_chosen = choice is not None and choice.benchmark == one.benchmark
            judged: Accuracy = choice.reported_on if choice is not None and has_chosen else one
            title += ", pairs that did not choose the model" * has_chosen
            figures = {
                "accuracy": ("Pairwise accuracy", judged.accuracy),
                "accuracy_low": ("Lower bound of the 95% interval of the accuracy", judged.accuracy_low),
                "accuracy_high": ("Upper bound of the 95% interval of the accuracy", judged.accuracy_high),
            }
            if one.sections is not None and not has_chosen:
                figures["overall"] = (f"Overall score ({one.sections.arithmetic})", one.sections.overall)
            for kind, (label, value) in figures.items():
                if value == value:  # not NaN
                    yield EvalResult(
                        task_type="text-classification",
                        task_name="Preference ranking",
                        dataset_type=name or (one.mixture if held_out else one.benchmark),
                        dataset_name=title,
                        metric_type=kind,
                        metric_name=label,
                        metric_value=round(value, 6),
                        **{f"dataset_{key}": text for key, text in place.items()},
                    )

    @cached_property
    def card(self) -> str:
        """The model's card for the repository: its code loads from there, and its metadata has what is known.

        Raises:
            UserError: the metadata cannot be read back as it was written.
        """
        run = self.facts.run  # first of all, as this checks the folder
        text = (self.model / "README.md").read_text(encoding="utf-8")
        card = ModelCard(text.replace(f'from_pretrained("{run}")', f'from_pretrained("{self.repo}")'))
        base, datasets = self._base_model(), self._datasets()
        card.data.license = self._license(base)
        if base is not None:
            card.data.base_model = base
        if datasets:
            card.data.datasets = datasets
        if figures := list(self._figures()):
            card.data.model_name, card.data.eval_results = self.repo.partition("/")[2], figures
        written = str(card)
        if ModelCard(written).data.to_dict() != card.data.to_dict():
            raise UserError(f"{self.model}/README.md: its metadata cannot be written as YAML; make the card again")
        return written

    @contextmanager
    def staged(self, max_shard_size: str) -> Iterator[Path]:
        """A folder with all files, as long as the block lasts: those of the model, its weights in shards, and the card.

        It is next to the model, where there is space for one. `max_shard_size`: bytes, or as `5GB`. Its run.json has
        the hashes of the files as they are here.

        Raises:
            UserError: `max_shard_size` is not a size.
        """
        limit, model = shard_bytes(max_shard_size), self.model.resolve()
        out = model.with_name(f".{model.name}.publish")
        with exclusive(model.with_name(f".{model.name}.publish-lock")):
            shutil.rmtree(out, ignore_errors=True)  # of a program that was killed
            try:
                self._write(out, limit)
                yield out
            finally:
                shutil.rmtree(out, ignore_errors=True)

    def _write(self, out: Path, limit: int) -> None:
        for path in sorted(filter(Path.is_file, self.model.rglob("*"))):
            name = path.relative_to(self.model)
            if not any(part.startswith(".") for part in name.parts):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (link_or_copy if path.suffix == ".safetensors" else shutil.copyfile)(path.resolve(), out / name)
        if limit < (out / WEIGHTS).stat().st_size:
            save_torch_state_dict(load_file(out / WEIGHTS), out, max_shard_size=limit)  # the file is only mapped
        (out / "README.md").write_text(self.card, encoding="utf-8")
        hashed = {*read_manifest(self.model / "run.json", repair=False).get("xxh3", ()), WEIGHTS}
        files = {path.relative_to(out).as_posix() for path in out.rglob("*")}
        shards = {name for name in files if name.startswith("model-") or name == f"{WEIGHTS}.index.json"}
        write_sealed(out / "run.json", self.facts.as_json(), sorted(files & hashed | shards))


def shard_bytes(size: str) -> int:
    """The number of bytes in a size such as `5GB`, `500MB` or `100000`.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip(), re.IGNORECASE)
    number = round(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if number < 1:
        raise UserError(f"--max-shard-size {size}: expected a size such as 5GB or 500MB")
    return number
