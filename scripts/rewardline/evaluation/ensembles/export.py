"""The folder of an ensemble: its members with all their files, and how their scores are combined."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from rewardline.core.artifacts import verify_model, write_sealed
from rewardline.core.files import atomic_folder, link_or_copy
from rewardline.core.settings import JsonObject
from rewardline.evaluation.results import EvaluationResult
from rewardline.evaluation.settings import EnsembleSettings
from rewardline.scoring.settings import ENSEMBLE

_CARD = """\
# {name}

An ensemble of {count} reward models: {members}. The scores of each are standardized by their mean and standard
deviation on {benchmark}, and combined by {combine}. The members are plain models, in `members/`; rewardline scores
with all of them, and says how much they differ:

```sh
python scripts/score.py --model {name} --prompt "..." --answer "..."
```
"""


def export_ensemble(settings: EnsembleSettings, models: Sequence[Path], metrics: Path, output: Path) -> None:
    """Write `ensemble.json`, a card and the members to `output`.

    `models`: the folder of each member; `metrics`: the `metrics.json` of the ensemble on the benchmark of the settings,
    which says what members are left out.

    Raises:
        UserError: a file is missing or damaged.
    """
    standards = EvaluationResult.read(metrics).standards
    with atomic_folder(output) as out:
        members: list[JsonValue] = []
        files = []
        for run, model in zip(settings.ensemble, models, strict=True):
            if run not in standards:
                continue
            verify_model(model)
            folder = f"members/{run}"
            copy_model(model, out / folder)
            files.append(f"{folder}/run.json")
            members.append({"run": run, "folder": folder, **standards[run].as_json()})
        combine: JsonObject = {"combine": settings.combine, "variance_weight": settings.variance_weight}
        card = _CARD.format(
            name=settings.run,
            count=len(members),
            members=", ".join(standards),
            benchmark="the held-out pairs" if settings.benchmark == "eval" else settings.benchmark,
            combine=settings.combine.replace("_", " "),
        )
        (out / "README.md").write_text(card, encoding="utf-8")
        content: JsonObject = {"name": settings.run, "benchmark": settings.benchmark, "combine": combine}
        write_sealed(out / ENSEMBLE, {**content, "members": members}, files)


def copy_model(model: Path, target: Path) -> None:
    """Copy the files of a model; its weights are linked where the file system allows it."""
    for path in sorted(filter(Path.is_file, model.rglob("*"))):
        copy = target / path.relative_to(model)
        copy.parent.mkdir(parents=True, exist_ok=True)
        (link_or_copy if path.suffix == ".safetensors" else shutil.copy2)(path, copy)
