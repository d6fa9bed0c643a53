"""Access to the Hugging Face hub: commits, models, uploads, and errors with remedies.

Downloads go through the cache of `huggingface_hub` (HF_HOME): files that an interrupted download has finished are not
fetched again. A token comes from the environment (HF_TOKEN), or from `hf auth login`.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from rewardline.core.errors import UserError, first_line

log = logging.getLogger(__name__)

RepoType = Literal["dataset", "model"]
TIMEOUT = 15.0
"""Seconds until a hub that does not answer counts as unreachable."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelRepo:
    """A model repository that may be written to; one that does not exist yet has no `commit`."""

    name: str
    commit: str | None = None
    files: Sequence[str] = ()


def look_up(kind: RepoType, repo: str, revision: str) -> tuple[str, list[str]]:
    """The commit of a revision and the paths of its files; to be called within `explained`.

    One request that fails within seconds, where downloads retry for minutes.
    """
    from huggingface_hub import HfApi

    info = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=TIMEOUT)
    return str(info.sha), [str(file.rfilename) for file in info.siblings or []]


def resolve(kind: RepoType, repo: str, revision: str) -> str:
    """The full commit of a revision, without a request if it is one; for a branch or tag, the log asks to pin it.

    Raises:
        UserError: there is no such revision, or the hub cannot be reached.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    with explained(kind, repo, revision):
        commit, _ = look_up(kind, repo, revision)
    message = "%s is not pinned: %s resolved to %s. Set `revision:` to this commit; else it can change between runs"
    log.warning(message, repo, revision, commit)
    return commit


def fetch_model(repo: str, revision: str, patterns: list[str]) -> tuple[str, Path]:
    """Download the files of a hub model that match `patterns` to the hub's cache; the commit and the folder.

    Raises:
        UserError: a problem of the name, the revision, the access or the network, with a remedy.
    """
    from huggingface_hub import is_offline_mode, snapshot_download

    commit = resolve("model", repo, revision)
    with explained("model", repo, revision):
        if commit == revision and not is_offline_mode():
            look_up("model", repo, commit)
        return commit, Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))


def cached_model(repo: str, revision: str, patterns: list[str]) -> Path:
    """As `fetch_model`, but a branch needs no pinning, and is taken from the cache offline; the folder."""
    from huggingface_hub import snapshot_download

    with explained("model", repo, revision):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))


@contextmanager
def explained(kind: RepoType, repo: str, revision: str) -> Iterator[None]:
    """Turn errors of the hub into a `UserError` with a remedy."""
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
            f"hub {kind} {repo} is not at {page}. Correct its name in `{key}`; if it is private, set HF_TOKEN in the "
            "environment to a token that may read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"hub {kind} {repo} has no revision {revision!r}. Take one from {page}/commits/main") from error
    except errors.HFValidationError as error:
        raise UserError(f"{repo!r} cannot be the name of a hub {kind} ({error}). Correct `{key}`") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.XetDownloadError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the local disk
            raise
        if is_offline_mode():
            raise UserError(
                f"HF_HUB_OFFLINE is set, and {repo} at {revision} is not complete in the cache "
                f"{constants.HF_HUB_CACHE}. Unset it, or fetch the {kind} once where there is network, with its full "
                f"commit as `revision:`, {instead}"
            ) from error
        raise UserError(
            f"the hub at {constants.ENDPOINT} cannot be reached for {repo}: {first_line(error)}. "
            f"Try again, set HF_ENDPOINT to a mirror, {instead}"
        ) from error


def writable_model(repo: str, private: bool) -> ModelRepo:
    """What a model repository holds; changes nothing on the hub.

    Raises:
        UserError: the name cannot be one, there is no token, it may only read, or `private` and the repository is not.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import validate_repo_id

    if repo.count("/") != 1:
        raise UserError(f"--repo {repo}: expected owner/name, such as my-account/my-reward-model")
    with _uploading(repo):
        validate_repo_id(repo)
        user = HfApi().whoami()
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise _no_right(repo, f"the token of {user.get('name')} may only read")
        try:
            info = HfApi().model_info(repo, timeout=TIMEOUT)
        except errors.RepositoryNotFoundError:
            return ModelRepo(repo)
    if private and info.private is False:
        raise UserError(f"--private: {repo} is a public repository. Make it private in its settings, or name another")
    return ModelRepo(repo, info.sha, [str(file.rfilename) for file in info.siblings or []])


def upload_model(repo: ModelRepo, folder: Path, private: bool, replaced: Sequence[str]) -> str:
    """Put the files of a folder into a model repository, which is created if need be; the address of the commit.

    There is one commit, after all content is on the hub: the repository is as before or has everything. What an
    interrupted upload has left there is not sent again. `replaced`: patterns of files that the commit deletes unless
    the folder has them.

    Raises:
        UserError: there is no right to, or the upload did not complete.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    old = [name for name in repo.files if name not in files and any(fnmatch(name, part) for part in replaced)]
    with _uploading(repo.name):
        if repo.commit is None:
            HfApi().create_repo(repo.name, private=private or None, exist_ok=True)
        # Not `upload_folder`, which may commit in several parts.
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        commit = HfApi().create_commit(
            repo.name,
            [*operations, *map(CommitOperationDelete, old)],
            commit_message="Publish with rewardline",
            parent_commit=repo.commit,
        )
    return str(commit.commit_url)


def _no_right(repo: str, reason: str) -> UserError:
    from huggingface_hub import constants

    return UserError(
        f"{repo}: {reason}. Set HF_TOKEN in the environment to a token that may write to {repo.partition('/')[0]}, see "
        f"{constants.ENDPOINT}/settings/tokens; nothing has been published"
    )


@contextmanager
def _uploading(repo: str) -> Iterator[None]:
    """Turn errors of an upload into a `UserError` with a remedy."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"--repo {repo}: cannot be the name of a repository ({first_line(error)})") from error
    except errors.LocalTokenNotFoundError as error:
        raise _no_right(repo, "publishing needs a token, and there is none") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(f"{repo}: HF_HUB_OFFLINE is set; unset it to publish") from error
    except (errors.HTTPError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the local disk
            raise
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status == 401:
            raise _no_right(repo, "the hub does not accept the token") from error
        if status == 403:
            raise _no_right(repo, f"the token has no right to write there ({first_line(cause)})") from error
        if status == 412:
            raise UserError(
                f"{repo} was changed during the upload, and is left so. Run the same command again"
            ) from error
        if status == 400 or isinstance(error, ValueError):
            raise UserError(f"{repo}: the hub refuses this; nothing has been published: {cause}") from error
        raise UserError(
            f"{repo}: the upload to {constants.ENDPOINT} did not complete ({first_line(cause)}), and nothing of it is "
            "published. The same command continues where this one stopped"
        ) from error
