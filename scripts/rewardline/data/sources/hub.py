"""Data sets of the Hugging Face hub: which files make a split, and those files on the local disk.

The files are read by `readers`, as they are. `datasets` only tells, from the data set's card and the names of its
files, which of them make the split: it looks at empty stand-ins, so that the answer is the same with and without
network, and nothing of the data set is ever executed. All goes through the cache of `huggingface_hub` (HF_HOME): files
that an interrupted download had finished are not fetched again, and a pinned data set that was fetched once needs no
network. A token comes from the environment (HF_TOKEN).
"""

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rewardline.core.errors import UserError, first_line
from rewardline.core.files import read_json, write_json
from rewardline.core.progress import progress

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 15.0  # seconds until a hub that does not answer counts as unreachable
_CARD = ("README.md", ".huggingface.yaml", "dataset_infos.json")  # what `datasets` reads to find the splits
_NOT_HOW_TO_READ = {"name", "version", "description", "data_dir", "data_files", "features"}


class HubFile(NamedTuple):
    """A file of a split: its name, `hub://repo@commit/split/path`, and where it lies on the local disk."""

    label: str
    path: Path


def fetch(
    repo: str,
    revision: str = "main",
    config: str | None = None,
    split: str = "train",
    data_files: Any = None,
    data_dir: str | None = None,
) -> tuple[str, list[HubFile]]:
    """Fetch the files of a split: the commit, and the files in the order in which `datasets` reads them.

    `data_files` and `data_dir` mean what they mean to `datasets.load_dataset`, within the repository.
    Raises `UserError` for a hub that cannot be reached, and an unknown or closed data set, revision, config or split.
    """
    with _explained(repo, revision):
        commit = _resolve(repo, revision)
        listing = _listing(repo, commit)
        card = _download(repo, commit, [name for name in _CARD if name in listing])
        splits = _splits(repo, listing, card, name=config, data_files=data_files, data_dir=data_dir)
        if split not in splits:
            raise UserError(
                f"hub data set {repo} has no split {split!r}. Its splits: {', '.join(splits)}. Set `split:`"
            )
        paths = _download(repo, commit, splits[split])
    return commit, [HubFile(f"hub://{repo}@{commit}/{split}/{name}", path) for name, path in paths.items()]


def fetch_model(repo: str, revision: str, patterns: list[str]) -> tuple[str, Path]:
    """Fetch the files of a hub model that match `patterns` into the hub's cache. Returns the commit and the folder.

    Raises:
        UserError: what is wrong with the name, the revision, the access or the network, and what to do.
    """
    from huggingface_hub import HfApi, is_offline_mode, snapshot_download

    with _explained(repo, revision, "model"):
        commit = revision
        if not _COMMIT.fullmatch(revision):
            commit = _pinned(repo, revision, str(HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT).sha))
        elif not is_offline_mode():
            HfApi().model_info(repo, revision=commit, timeout=_TIMEOUT)
        return commit, Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))


def cached_model(repo: str, revision: str, patterns: list[str]) -> Path:
    """As `fetch_model`, for a use that need not be repeated: a branch is no matter, and a cache serves offline."""
    from huggingface_hub import snapshot_download

    with _explained(repo, revision, "model"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))


def _resolve(repo: str, revision: str) -> str:
    if _COMMIT.fullmatch(revision):
        return revision
    return _pinned(repo, revision, str(_info(repo, revision).sha))


def _pinned(repo: str, revision: str, commit: str) -> str:
    log.warning(
        "%s is not pinned: %s resolved to %s. Write this commit into the config, as `revision:`; else it can "
        "change between runs",
        repo,
        revision,
        commit,
    )
    return commit


def _info(repo: str, revision: str) -> Any:
    """What the hub says of a revision; one request that fails within seconds where downloads retry for minutes."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(repo, revision=revision, timeout=_TIMEOUT)


def _listing(repo: str, commit: str) -> list[str]:
    """The paths of all files at a commit, sorted.

    They are remembered beside the hub's own cache, which may hold some files only and then cannot tell without network
    what makes a split.
    """
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    remembered = _remembered(repo, commit)
    if remembered.exists():
        return [str(name) for name in read_json(remembered)]
    try:
        names = sorted(str(item.rfilename) for item in _info(repo, commit).siblings or [])
    except (OfflineModeIsEnabled, HTTPError) as error:
        return _cached_listing(repo, commit, error)
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"hub data set {repo} lists a file outside of itself, {name!r}: do not use it")
    with suppress(OSError):  # a cache that others fill and we may only read
        write_json(remembered, names)
    return names


def _remembered(repo: str, commit: str) -> Path:
    from huggingface_hub.constants import HF_ASSETS_CACHE

    return Path(HF_ASSETS_CACHE) / "rewardline" / "datasets" / f"{repo.replace('/', '--')}@{commit}.json"


def _cached_listing(repo: str, commit: str, error: Exception) -> list[str]:
    """The files of a data set that another program fetched whole, such as `hf download`; otherwise raises `error`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        raise error from None
    log.warning("the hub cannot be asked for the files of %s@%s: those in the cache are taken for all", repo, commit)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _download(repo: str, commit: str, names: list[str]) -> dict[str, Path]:
    """The local copies of files, in the order of `names`."""
    from huggingface_hub import hf_hub_download, is_offline_mode, try_to_load_from_cache

    cached = {name: try_to_load_from_cache(repo, name, revision=commit, repo_type="dataset") for name in names}
    missing = [name for name in names if not isinstance(cached[name], str)]
    if missing and not is_offline_mode():
        _info(repo, commit)
    with progress(f"fetch {repo}", total=len(names), unit="file", start=len(names) - len(missing)) as bar:
        for name in missing:
            cached[name] = hf_hub_download(repo, name, revision=commit, repo_type="dataset")
            bar.update(1)
    return {name: Path(path) for name, path in cached.items()}


def _splits(repo: str, listing: list[str], card: dict[str, Path], **choice: Any) -> dict[str, list[str]]:
    """The files of each split, as `datasets` finds them; `choice` has its `name`, `data_files` and `data_dir`."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "repository"
        for name in listing:
            stand_in = root / name
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            if name in card:
                stand_in.write_bytes(card[name].read_bytes())
            elif stand_in.suffix != ".py":
                stand_in.touch()
        try:
            builder = datasets.load_dataset_builder(str(root), cache_dir=folder, **choice)
            config = builder.config
            splits = {
                str(split): list(dict.fromkeys(Path(file).relative_to(root).as_posix() for file in files))
                for split, files in config.data_files.items()
            }
        except (ValueError, OSError, RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).partition("\nExample of")[0].replace(str(root), repo).split()).rstrip(".")
            raise UserError(
                f"hub data set {repo}: the files to read cannot be told: {reason}. Set `config:` or `data_files:`, or "
                "copy its files and name them in `files:`"
            ) from error
    _check_how_to_read(repo, config, splits)
    return splits


def _check_how_to_read(repo: str, config: Any, splits: dict[str, list[str]]) -> None:
    """Raise `UserError` when the card asks for another way of reading than the files' extensions."""
    options = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in _NOT_HOW_TO_READ and getattr(config, field.name) != field.default
    }
    if all(".tsv" in PurePosixPath(file).suffixes for files in splits.values() for file in files):
        options = {key: value for key, value in options.items() if value != "\t"}
    if options:
        raise UserError(
            f"hub data set {repo}: its card asks to read its files with {options}, which is not supported. Copy them, "
            "convert them to JSON Lines and name them in `files:`"
        )


@contextmanager
def _explained(repo: str, revision: str, kind: str = "data set") -> Iterator[None]:
    """Turn what can go wrong with the hub into a `UserError` that says what to do. `kind` is data set or model."""
    from huggingface_hub import constants, errors, is_offline_mode

    is_model = kind == "model"
    key = "path:" if is_model else "hub:"
    instead = f"or copy its files here and name {'their folder in `path:`' if is_model else 'them in `files:`'}"
    page = f"{constants.ENDPOINT}/{'' if is_model else 'datasets/'}{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"hub {kind} {repo} is gated. Accept its conditions at {page} and set HF_TOKEN in the environment to a "
            f"token of that account, {instead}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"hub {kind} {repo} is not at {page}. Mend its name in `{key}`; if it is private, set HF_TOKEN in the "
            "environment to a token that may read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"hub {kind} {repo} has no revision {revision!r}. Take one from {page}/commits/main") from error
    except errors.HFValidationError as error:
        raise UserError(f"{repo!r} cannot be the name of a hub {kind} ({error}). Mend `{key}`") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.XetDownloadError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the local disk
            raise
        if is_offline_mode():
            raise UserError(
                f"HF_HUB_OFFLINE is set, and {repo} at {revision} is not whole in the cache {constants.HF_HUB_CACHE}. "
                f"Unset it, or fetch the {kind} once where there is network, with its full commit as `revision:`, "
                + instead
            ) from error
        raise UserError(
            f"the hub at {constants.ENDPOINT} cannot be reached for {repo}: {first_line(error)}. "
            f"Try again, set HF_ENDPOINT to a mirror, {instead}"
        ) from error
