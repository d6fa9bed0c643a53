"""Local files that the configuration names."""

from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.data.sources.local_files import expand_files
from rewardline.model.settings import BaseModelSettings


def local_model_files(model: BaseModelSettings) -> list[str]:
    """The files of a model that is on this machine; none for one from elsewhere.

    Raises:
        UserError: it should be on this machine, and is not.
    """
    if model.gguf is not None:
        return [] if model.gguf.wheel else expand_files([model.gguf.file])
    path = model.path or ""
    if path and Path(path).is_dir():
        files = [file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith(".")]
        return expand_files(sorted(map(str, files)))
    if path.startswith((".", "/", "~")):
        raise UserError(f"path: {path} is not a folder")
    return []
