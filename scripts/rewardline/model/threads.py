"""The number of threads, which decides the last bits of sums."""

import torch


def hold_threads() -> None:
    """Make MKL use all of torch's threads for every product, so that results are reproducible.

    With its default, MKL_DYNAMIC, it may use fewer, and a sum in another order differs in the last bits. Set through
    torch, since the environment variable would also lift MKL's limit of one thread per physical core.
    """
    torch.set_num_threads(torch.get_num_threads())
