"""What several tests share: the repository, real data where it is at hand, and small models made on the spot."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rewardline.data.pairs.store import PAIR_SCHEMA, PartWriter
from rewardline.tokens.store import Comparison, ShardWriter

if TYPE_CHECKING:
    from slurm.cluster import Cluster
    from slurm.runs import ClusterProject

# Several processes share the cores here, where threads that spin while they wait make a step take six times as long. A
# training that has its cores for itself is faster with spinning, so the pipeline leaves it on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["DS_ACCELERATOR"] = "cpu"  # says so less loudly than DeepSpeed does by itself
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
Json = dict[str, Any]

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES: dict[str, Json] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": None},
    "qwen2": {**LLAMA, "model_type": "qwen2"},
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 8},
    "gemma": {**LLAMA, "model_type": "gemma", "head_dim": 8},
    "gemma3_text": {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 64},
    "smollm3": {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0]},
    "phi3": {**LLAMA, "model_type": "phi3"},
    "olmo2": {**LLAMA, "model_type": "olmo2"},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    # All that is unusual in OPT-350m: a projection around the decoder, normalisation after each block, positions
    # with an offset.
    "opt": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 16,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "do_layer_norm_before": False,
        "max_position_embeddings": 128,
    },
}
PADDED: dict[str, Json] = {
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "bert": {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
}
"""Models that cannot share prefixes."""


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """The process group of a lone process, for engines in the test's own process."""
    import engines

    with engines.one_process():
        yield


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real preference data is not at hand")
    return SHARED_DATA


def random_comparison(rng: np.random.Generator, prefix: int, tails: Sequence[int], vocabulary: int = 90) -> Comparison:
    """A comparison of random tokens, in which the first tail is better than every other."""

    def ids(count: int) -> Any:
        return rng.integers(5, vocabulary, count).astype(np.int32)

    pairs = [
        {
            "pair_id": f"{rng.integers(2**60):016x}",
            "dataset": "d",
            "subset": "s",
            "chosen": 0,
            "rejected": k,
            "margin": None,
            "confidence": 1.0,
            "weight": 1.0,
        }
        for k in range(1, len(tails))
    ]
    name = f"{rng.integers(2**60):016x}"
    return Comparison(name, ids(prefix), [ids(count) for count in tails], pairs, int(rng.integers(prefix + 1)))


def write_tokens(folder: Path, train: Sequence[Comparison], held_out: Sequence[Comparison]) -> None:
    """A folder as the tokenize stage leaves it."""
    folder.mkdir(parents=True)
    splits = {}
    for split, rows in (("train", train), ("eval", held_out)):
        writer = ShardWriter(folder, split)
        for row in rows:
            writer.add(row)
        splits[split] = writer.close()
    facts = {"template": "plain", "end_token": "<|end|>", "pad_id": 0, "max_length": 64}
    (folder / "manifest.json").write_text(json.dumps({**facts, "splits": splits}))


def pair_rows(count: int, variety: str = "") -> list[Json]:
    """Rows of pairs with distinct prompts, clustered by prompt as the pairs stage leaves them."""
    return [
        {
            "pair_id": f"{k:016x}",
            "prompt_id": f"{k:016x}",
            "dataset": "d",
            "subset": "even" if k % 2 == 0 else "odd",
            "prompt": [{"role": "user", "content": f"How many are {k} and {k + 1}{variety}?"}],
            "chosen": f"They are {2 * k + 1}.",
            "rejected": f"They are {2 * k + 3}, I would say.",
            "margin": None,
            "confidence": 1.0,
            "weight": 1.0,
            "file": "f",
            "row": k + 1,
        }
        for k in range(count)
    ]


def write_pairs(folder: Path, train: list[Json], held_out: list[Json]) -> None:
    """A folder as the pairs stage leaves it."""
    for split, rows in (("train", train), ("eval", held_out)):
        writer = PartWriter(folder / split, PAIR_SCHEMA)
        for row in rows:
            writer.add(row)
        writer.close()
    for name in ("stats.json", "manifest.json"):
        (folder / name).write_text(json.dumps({"train": len(train), "eval": len(held_out)}))


@pytest.fixture(scope="session")
def base_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make (once) a base model of a family with a tokenizer of its own, as the base model stage leaves it."""
    root = tmp_path_factory.mktemp("bases")

    def make(family: str = "llama", **tokenizer: Any) -> Path:
        import base_model

        folder = root / f"{family}-{'-'.join(map(str, tokenizer.values()))}"
        if folder.exists():
            return folder
        work = root / f"{folder.name}.work"
        write_pairs(work / "results" / "pairs" / "m", pair_rows(60), [])
        wanted = {"mixture": "m", "vocab_size": 400, "bos_token": None, "eos_token": "<|end|>", "pad_token": "<|pad|>"}
        settings = {"init": {"config": {**FAMILIES, **PADDED}[family], "seed": 0, "tokenizer": {**wanted, **tokenizer}}}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            assert base_model.main(["--settings", json.dumps(settings), "--output", str(folder)]) == 0
        shutil.rmtree(work)
        return folder

    return make


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small comparisons as the tokenize stage leaves them."""
    from trainings import write_small_tokens

    folder = tmp_path_factory.mktemp("data") / "m" / "x"
    write_small_tokens(folder)
    return folder


@pytest.fixture(scope="session")
def base(base_models: Callable[..., Path]) -> Path:
    """A tiny Llama to start from."""
    return base_models("llama")


@pytest.fixture(scope="session")
def cluster() -> Iterator["Cluster"]:
    """A Slurm cluster, which ends with the tests; see tests/slurm/cluster.py."""
    from slurm.cluster import running
    from slurm.sandbox import UnavailableError

    with ExitStack() as held:
        try:
            cluster = held.enter_context(running())
        except UnavailableError as error:
            pytest.skip(f"no Slurm cluster can be started here: {error}")
        yield cluster


@pytest.fixture(scope="session")
def run_on_one_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project whose small run has ended, on this machine, with what profiles/slurm says of threads."""
    from project import Project
    from slurm.runs import PROFILE_THREADS, TINY

    project = Project(tmp_path_factory.mktemp("one-machine") / "project")
    project.run("--cores", "2", "--configfile", str(project.overlay(TINY)), "--set-threads", *PROFILE_THREADS)
    return project.folder


@pytest.fixture
def project(cluster: "Cluster", run_on_one_machine: Path, tmp_path: Path) -> Iterator["ClusterProject"]:
    """A project on the cluster with its data, in which the training and what comes after it is still to do."""
    from slurm.runs import TINY, ClusterProject

    project = ClusterProject(tmp_path / "project", cluster)
    project.start_from(run_on_one_machine, "models", "checkpoints", "evals")
    project.overlay(TINY)
    cluster.clear()
    yield project
    project.close()
