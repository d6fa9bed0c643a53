"""Datasets of the Hugging Face hub: which files make a split, and those files on the local disk.

The files are read by `readers`, as they are. `datasets` only decides, from the dataset's card and the names of its
files, which of them make the split. It gets empty files of these names, so that the result is the same with and
without network, and no code of the dataset is executed. A pinned dataset that was downloaded once needs no network.
"""

import logging
import tempfile
from dataclasses import fields
from pathlib import Path, PurePosixPath

from rewardline.core import hub
from rewardline.core.errors import UserError, listing
from rewardline.core.progress import progress
from rewardline.data.sources.dataset import file_inputs
from rewardline.data.sources.settings import DownloadSettings
from rewardline.data.sources.store import Source, write_rows
from rewardline.data.stored_rows import StoredDataset

log = logging.getLogger(__name__)

_CARD = ["README.md", ".huggingface.yaml", "dataset_infos.json"]  # what `datasets` reads to find the splits
_NOT_HOW_TO_READ = {"name", "version", "description", "data_dir", "data_files", "features"}


def from_hub(name: str, settings: DownloadSettings) -> Source:
    """A split of the hub dataset `settings.hub`; a `UserError` if its revision cannot be resolved."""
    repo = str(settings.hub)
    commit = hub.resolve("dataset", repo, settings.revision or "main")

    def write(folder: Path) -> StoredDataset:
        split = settings.split or "train"
        files = fetch(repo, commit, settings.config, split, settings.data_files, settings.data_dir)
        return write_rows(name, file_inputs(files, settings.columns), folder)

    return Source(settings.description(), {"commit": commit}, write, commit)


def fetch(
    repo: str,
    commit: str,
    config: str | None = None,
    split: str = "train",
    data_files: list[str] | None = None,
    data_dir: str | None = None,
) -> dict[str, Path]:
    """Download the files of a split, in the order in which `datasets` reads them.

    `data_files` and `data_dir` mean what they mean to `datasets.load_dataset`, within the repository.

    Returns:
        The path of each file on the local disk, by its name `hub://repo@commit/split/path`.

    Raises:
        UserError: the hub cannot be reached, or the dataset, commit, config or split is unknown or closed.
    """
    with hub.explained("dataset", repo, commit):
        names = _files(repo, commit)
        card = _download(repo, commit, [name for name in _CARD if name in names])
        splits = _splits(repo, names, card, config, data_files, data_dir)
        if split not in splits:
            raise UserError(f"hub dataset {repo} has no split {split!r}. Its splits: {listing(splits)}. Set `split:`")
        paths = _download(repo, commit, splits[split])
    return {f"hub://{repo}@{commit}/{split}/{name}": path for name, path in paths.items()}


def _files(repo: str, commit: str) -> list[str]:
    """The paths of all files at a commit, sorted.

    They are in the hub's cache after a call of `snapshot_download`. A cache that was filled in another way may have
    only some of the files.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    options = {"repo_type": "dataset", "revision": commit}
    try:
        names = [str(file.path) for file in get_cached_repo_tree(repo, **options)]
    except CachedRepoTreeNotFoundError:
        try:
            _, names = hub.look_up("dataset", repo, commit)
        except (OfflineModeIsEnabled, HTTPError) as error:
            try:
                folder = Path(snapshot_download(repo, local_files_only=True, **options))
            except LocalEntryNotFoundError:
                raise error from None
            log.warning("the hub cannot list the files of %s@%s; only those in the cache are used", repo, commit)
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        else:
            snapshot_download(repo, allow_patterns=_CARD, **options)
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"hub dataset {repo} lists a file outside of itself, {name!r}: do not use it")
    return sorted(names)


def _download(repo: str, commit: str, names: list[str]) -> dict[str, Path]:
    """The local copies of files, in the order of `names`."""
    from huggingface_hub import hf_hub_download, is_offline_mode, try_to_load_from_cache

    options = {"revision": commit, "repo_type": "dataset"}
    if not is_offline_mode() and not all(
        isinstance(try_to_load_from_cache(repo, name, **options), str) for name in names
    ):
        hub.look_up("dataset", repo, commit)
    paths = {}
    with progress(f"fetch {repo}", total=len(names), unit="file") as bar:
        for name in names:
            paths[name] = Path(hf_hub_download(repo, name, **options))
            bar.update(1)
    return paths


def _splits(
    repo: str,
    names: list[str],
    card: dict[str, Path],
    config: str | None,
    data_files: list[str] | None,
    data_dir: str | None,
) -> dict[str, list[str]]:
    """The files of each split, as `datasets` finds them."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "repository"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in card or path.suffix != ".py":
                path.write_bytes(card[name].read_bytes() if name in card else b"")
        try:
            builder = datasets.load_dataset_builder(
                str(root), config, data_files=data_files, data_dir=data_dir, cache_dir=folder
            )
            splits = {
                str(split): list(dict.fromkeys(Path(file).relative_to(root).as_posix() for file in files))
                for split, files in builder.config.data_files.items()
            }
        except (ValueError, OSError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).partition("\nExample of")[0].replace(str(root), repo).split()).rstrip(".")
            raise UserError(
                f"hub dataset {repo}: cannot find the files to read: {reason}. Set `config:` or `data_files:`, or copy "
                "its files and name them in `files:`"
            ) from error
    options = {
        field.name: getattr(builder.config, field.name)
        for field in fields(builder.config)
        if field.name not in _NOT_HOW_TO_READ and getattr(builder.config, field.name) != field.default
    }
    if all(".tsv" in PurePosixPath(file).suffixes for files in splits.values() for file in files):
        options = {key: value for key, value in options.items() if value != "\t"}
    if options:
        raise UserError(
            f"hub dataset {repo}: its card asks to read its files with {options}, which is not supported. Copy them, "
            "convert them to JSON Lines and name them in `files:`"
        )
    return splits
