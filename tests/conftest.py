"""What several tests share: the repository, real data where it is at hand, and small models made on the spot."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from support.families import FAMILIES, PADDED
from support.pairs import pair_rows, write_pairs
from support.paths import SHARED_DATA

if TYPE_CHECKING:
    from support.slurm.cluster import Cluster
    from support.slurm.runs import ClusterProject

# Several processes share the cores here, where threads that spin while they wait make a step take six times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the same reason; a training sets its own number
os.environ["DS_ACCELERATOR"] = "cpu"  # says so less loudly than DeepSpeed does by itself
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.load_profile("ci")  # the same examples each time; `--hypothesis-profile default` searches at random

Json = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests an hour in place of the time limit of all others."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """The process group of a lone process, for engines in the test's own process."""
    from support import engines

    with engines.one_process():
        yield


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real preference data is not at hand")
    return SHARED_DATA


@pytest.fixture(scope="session")
def base_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make (once) a base model of a family with a tokenizer of its own, as the base model stage leaves it."""
    root = tmp_path_factory.mktemp("bases")

    def make(family: str = "llama", **tokenizer: Any) -> Path:
        import base_model

        folder = root / f"{family}-{'-'.join(map(str, tokenizer.values()))}"
        if folder.exists():
            return folder
        pairs = root / "pairs"
        if not pairs.exists():
            write_pairs(pairs, pair_rows(60), [])
        wanted = {"mixture": "m", "vocab_size": 400, "bos_token": None, "eos_token": "<|end|>", "pad_token": "<|pad|>"}
        settings = {"init": {"config": {**FAMILIES, **PADDED}[family], "seed": 0, "tokenizer": {**wanted, **tokenizer}}}
        arguments = ["--settings", json.dumps(settings), "--pairs", str(pairs / "train"), "--output", str(folder)]
        assert base_model.main(arguments) == 0
        return folder

    return make


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small comparisons as the tokenize stage leaves them."""
    from support.training_runs import write_small_tokens

    folder = tmp_path_factory.mktemp("data") / "m" / "x"
    write_small_tokens(folder)
    return folder


@pytest.fixture(scope="session")
def base(base_models: Callable[..., Path]) -> Path:
    """A tiny Llama to start from."""
    return base_models("llama")


@pytest.fixture(scope="session")
def cluster() -> Iterator["Cluster"]:
    """A Slurm cluster, which ends with the tests; see tests/support/slurm/cluster.py."""
    from support.slurm.cluster import running
    from support.slurm.sandbox import UnavailableError

    with ExitStack() as held:
        try:
            cluster = held.enter_context(running())
        except UnavailableError as error:
            pytest.skip(f"no Slurm cluster can be started here: {error}")
        yield cluster


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project whose small run has ended, on this machine."""
    from support.project import Project
    from support.slurm.runs import TINY

    project = Project(tmp_path_factory.mktemp("one-machine") / "project")
    project.run("--cores", "2", "--configfile", str(project.overlay(TINY)))
    return project.folder


@pytest.fixture
def project(cluster: "Cluster", local_run: Path, tmp_path: Path) -> Iterator["ClusterProject"]:
    """A project on the cluster with its data, in which the training and what comes after it is still to do."""
    from support.slurm.runs import TINY, ClusterProject

    project = ClusterProject(tmp_path / "project", cluster)
    project.start_from(local_run, "models", "checkpoints", "evals")
    project.overlay(TINY)
    cluster.clear()
    yield project
    project.close()
