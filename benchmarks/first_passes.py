"""How often the first forward pass of a process differs from that of other processes.

    python benchmarks/first_passes.py --processes 5000             with the warm-up of rewardline.model.threads
    python benchmarks/first_passes.py --processes 5000 --bare      without it

MKL computes the first call of a vector function with another accuracy in one of its threads now and then, if several
threads make that call at once (see docs/mkl_first_call.md). Each process here is a fork of one that has called no torch
operation; it multiplies matrices, and computes a layer of a transformer, whose first vector function is the cosine
of the rotary embedding. The script counts the processes whose first cosine differs from its repetition, and those whose
hidden states differ from the most frequent ones.
"""

import argparse
import os
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # threads that wait for long take the time of others on a busy machine
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import torch
from torch import Tensor
from torch.nn import functional

from rewardline.model.threads import start_threads

LENGTH, SIZE = 1597, 64


def first_pass(threads: int, bare: bool) -> tuple[float, str]:
    """The greatest error of the first cosine, and the hash of the hidden states of the first forward pass."""
    torch.set_num_threads(threads)
    if not bare:
        start_threads()
    torch.manual_seed(0)
    states, projection = torch.randn(LENGTH, SIZE), torch.randn(SIZE, 8 * SIZE) / SIZE
    left, right = torch.randn(400, 8 * SIZE), torch.randn(8 * SIZE, 8 * SIZE)
    for _ in range(3):
        left @ right
    angles = torch.outer(torch.arange(LENGTH).float(), 1.0 / 10_000 ** (torch.arange(SIZE) / SIZE))
    cosine = angles.cos()
    hidden = layer(states, projection, cosine, angles.sin())
    return (cosine - angles.cos()).abs().max().item(), sha256(hidden.numpy().tobytes()).hexdigest()


def layer(states: Tensor, projection: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Attention with rotary embeddings and a gated MLP: float32 [T, size], from states of this shape."""
    query, key, value, gate, up, down = (states @ projection).split(SIZE, dim=1)[:6]
    query, key = (one * cosine + one.roll(SIZE // 2, 1) * sine for one in (query, key))
    attended = functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True)[0]
    return attended + functional.silu(gate) * up * down.softmax(dim=1)


def in_a_fork(threads: int, bare: bool) -> tuple[float, str]:
    """`first_pass` in a process of its own."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        error, digest = first_pass(threads, bare)
        os.write(writer, f"{error} {digest}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        error, digest = stream.read().split()
    os.waitpid(child, 0)
    return float(error), digest


def main() -> int:
    """Run the processes one after the other; 1 if any of them differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bare", action="store_true", help="without the warm-up")
    args = parser.parse_args()
    start = time.monotonic()
    passes = [in_a_fork(args.threads, args.bare) for _ in range(args.processes)]
    wrong = [error for error, _ in passes if error]
    different = args.processes - Counter(digest for _, digest in passes).most_common(1)[0][1]
    print(f"{args.processes} processes, {args.threads} threads, {time.monotonic() - start:.0f} s")
    print(f"first cosine wrong: {len(wrong)} (by up to {max(wrong, default=0):.1e})")
    print(f"first forward pass different: {different}")
    return int(bool(wrong or different))


if __name__ == "__main__":
    sys.exit(main())
