"""A model that is too large for one GPU, held by several processes together: ZeRO-3 partitions its weights.

This process starts the others, and all load the same model. The weights of a layer are gathered from all processes when
it is computed, so that all compute at once, each a batch of its own. The batches are those of one process, and so
are the scores, within rounding.
"""

import atexit
import logging
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from rewardline.core import cli, runtime
from rewardline.core.errors import UserError, explain
from rewardline.core.files import read_json
from rewardline.core.settings import JsonObject
from rewardline.model.batch import Batch
from rewardline.model.loading import DTYPES
from rewardline.model.processes import local_device, start_processes
from rewardline.model.reward_model import RewardModel

if TYPE_CHECKING:
    _Pipe = Connection[bytes, bytes]  # not at run time

log = logging.getLogger(__name__)
T = TypeVar("T")
Compute = Callable[[Iterable[Batch]], Sequence[Tensor]]
"""The scores of each of several batches, float32 [S]."""

SHARE = 0.8
"""The share of a GPU's memory that weights may take; the rest is for what is computed with them."""
GRACE = 5
"""Seconds for which a process that has failed lets the first one, which may have failed alike, say why."""
_CPU = torch.device("cpu")
_Load = Callable[[], tuple[object, RewardModel]]


class _Task(NamedTuple):
    """Batches that another process is to compute with the model that was loaded as number `model`."""

    model: int
    batches: list[Batch]


def processes_for(folder: Path, dtype: str, requested: int) -> int:
    """How many processes hold the model of a folder: as many as `requested`; for 0, one or one for each GPU.

    The latter if the weights take more than `SHARE` of the memory of a GPU. `dtype`: in memory, as of `load_any`.

    Raises:
        UserError: there are too few GPUs, or its weights are not in safetensors.
    """
    gpus, files = torch.cuda.device_count(), list(folder.glob("*.safetensors"))
    if requested > 1:
        if 0 < gpus < requested:
            raise UserError(f"--processes {requested}: each needs a GPU, and {gpus} are visible; give more, see --gpus")
        if not files:
            raise UserError(f"--processes {requested}: {folder} has no safetensors, and others cannot be partitioned")
    if requested or not gpus or not files:
        return max(1, requested)
    stored, loaded = (DTYPES[name].itemsize for name in _dtypes(folder, dtype))
    size = sum(path.stat().st_size for path in files) * loaded // stored
    memory = torch.cuda.get_device_properties(0).total_memory
    if size > gpus * memory:
        raise UserError(
            f"{folder}: its weights take {size / 2**30:.0f} GiB, and {gpus} GPU(s) have {memory / 2**30:.0f} GiB each; "
            "use more: set the resource `gpu` of the stage, or CUDA_VISIBLE_DEVICES of a program"
        )
    return 1 if size <= SHARE * memory else gpus


def _dtypes(folder: Path, dtype: str) -> tuple[str, str]:
    """The names of the weights' precision in a folder, and in memory."""
    config = read_json(folder / "config.json")
    names = {str(value).removeprefix("torch."): name for name, value in DTYPES.items()}
    stored = names.get(str(config.get("dtype", config.get("torch_dtype"))), "fp32")
    return stored, stored if dtype == "auto" else dtype


def load(
    folder: Path, make: Callable[[], T], model_of: Callable[[T], RewardModel], dtype: str, requested: int
) -> tuple[T, Compute | None]:
    """What `make` makes of the model in a folder, and what computes with it; None if it is held by this process alone.

    `model_of` finds the model in what `make` returns; both must be picklable. The others as of `processes_for`.

    Raises:
        UserError: it cannot be loaded, not in as many processes, or its scores depend on more than their row.
    """
    count = processes_for(folder, dtype, requested)
    if count == 1:
        return make(), None
    log.info("%s: its weights are partitioned over %d processes (ZeRO-3)", folder, count)
    return _group(count).load(partial(_partitioned, make, model_of, _dtypes(folder, dtype)[1]))


class _Group:
    """The other processes that hold models together with this one, the first."""

    def __init__(self, count: int) -> None:
        context, port = get_context("spawn"), runtime.free_port()
        self._models = 0
        self._others: list[_Pipe] = []
        self._processes: list[BaseProcess] = []
        ending = Event()
        for rank in range(1, count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(os.getpid(), rank, count, port, there), daemon=True)
            process.start()
            there.close()
            self._others.append(here)
            self._processes.append(process)
            atexit.register(process.kill)
            Thread(target=_watch, args=(process, ending), daemon=True).start()
        atexit.register(ending.set)
        with self._all_there():
            _join(0, count, port)

    def load(self, make: Callable[[], tuple[T, RewardModel]]) -> tuple[T, Compute]:
        """Load a model in all processes."""
        self._send([make] * len(self._others))
        with self._all_there():
            made, model = make()
            compute = partial(self._compute, self._models, model)
            model.check_scores(lambda batch: compute([batch])[0])  # before, each process had a part of the weights only
        self._models += 1
        return made, compute

    def _compute(self, number: int, model: RewardModel, batches: Iterable[Batch]) -> list[Tensor]:
        given = [batch.to(_CPU) for batch in batches]
        count = len(self._others) + 1
        shared = given + given[-1:] * (-len(given) % count)  # as all must compute equally often
        self._send([_Task(number, shared[rank::count]) for rank in range(1, count)])
        with self._all_there():
            scores = [_scores(model, shared[::count])]
            for other in self._others:
                found: list[Tensor] = pickle.loads(other.recv_bytes())  # noqa: S301 - from a process of this program
                scores.append(found)
        return [scores[k % count][k // count] for k in range(len(given))]

    def _send(self, messages: Sequence[object]) -> None:
        with self._all_there():
            for other, message in zip(self._others, messages, strict=True):
                _send(other, message)

    @contextmanager
    def _all_there(self) -> Iterator[None]:
        """A block that fails if one of the others has failed: then `_watch` is about to end this process."""
        try:
            yield
        except (RuntimeError, OSError, EOFError):
            if wait([process.sentinel for process in self._processes], 0):
                time.sleep(GRACE)
            raise


_group = cache(_Group)


def _watch(process: BaseProcess, ending: Event) -> None:
    """End this process, which may wait for ever, if one of the others ends before it does."""
    wait([process.sentinel])
    if not ending.is_set():
        process.join()
        hint = "; was there too little memory?" if process.exitcode == -signal.SIGKILL else ""
        log.error("error: a process that held a part of the model ended with code %s%s", process.exitcode, hint)
        os._exit(1)


def _serve(parent: int, rank: int, count: int, port: int, connection: "_Pipe") -> None:
    """In another process: do what the first one says, until it ends."""
    runtime.end_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the first process decides
    cli.start_logging(None)
    cli.log.setLevel(logging.ERROR)
    runtime.quiet(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        _join(rank, count, port)
        held: list[RewardModel] = []
        while True:
            message: _Task | _Load = pickle.loads(connection.recv_bytes())  # noqa: S301 - from a process of this program
            if isinstance(message, _Task):
                _send(connection, _scores(held[message.model], message.batches))
            else:
                held.append(message()[1])
    except EOFError:
        os._exit(0)  # the first process has ended
    except BaseException as error:
        time.sleep(GRACE)
        log.error("error: %s", explain(error) or traceback.format_exc())
        os._exit(1)


def _send(connection: "_Pipe", message: object) -> None:
    # Not connection.send(), which takes shared memory for tensors: containers have little.
    connection.send_bytes(pickle.dumps(message))


def _join(rank: int, count: int, port: int) -> None:
    """Connect with the other processes."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()}, MASTER_ADDR="127.0.0.1")
    local_device()
    start_processes()


def _partitioned(make: Callable[[], T], model_of: Callable[[T], RewardModel], dtype: str) -> tuple[T, RewardModel]:
    """What `make` makes, and the model in it, of which this process holds a part; all processes call it at once."""
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    if dtype == "fp16" and not torch.cuda.is_available():
        raise UserError("weights in fp16 are not partitioned on a CPU; take one process, or --dtype fp32")
    config: JsonObject = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3},
        "steps_per_print": 10**9,
    }
    if dtype != "fp32":
        config[dtype] = {"enabled": True}
    # Transformers loads weights straight into the partitions of ZeRO-3 while such an object is alive.
    partitioned = HfDeepSpeedConfig(config)
    made = make()
    model = model_of(made)
    deepspeed.initialize(model=model, config=config)  # without an optimizer: it gathers the weights of each layer
    del partitioned
    model.eval()
    return made, model


def _scores(model: RewardModel, batches: Sequence[Batch]) -> list[Tensor]:
    device = local_device()
    with torch.inference_mode():
        scores = [model(batch.to(device), True) for batch in batches]
    return [tensor.to(_CPU) for tensor in scores]
