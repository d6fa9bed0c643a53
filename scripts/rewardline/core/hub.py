"""Access to the Hugging Face hub: commits, models, and errors with remedies.

Everything goes through the cache of `huggingface_hub` (HF_HOME): files that an interrupted download has finished are
not fetched again. A token comes from the environment (HF_TOKEN).
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rewardline.core.errors import UserError, first_line

log = logging.getLogger(__name__)

RepoType = Literal["dataset", "model"]
TIMEOUT = 15.0
"""Seconds until a hub that does not answer counts as unreachable."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


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
