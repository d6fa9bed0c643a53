"""Threads of torch that compute the same in every process."""

import torch

VECTOR_FUNCTIONS = (
    *("cos", "sin", "tan", "acos", "asin", "atan", "cosh", "sinh", "tanh", "exp", "exp2", "expm1", "log", "log2"),
    *("log10", "log1p", "sqrt", "rsqrt", "erf", "erfc", "erfinv", "lgamma", "sigmoid", "trunc", "frac"),
)
"""Functions of torch that MKL's vector math library may compute."""
ACTIVATIONS = ("silu", "gelu", "softplus", "logsigmoid", "mish", "elu")


def start_threads() -> None:
    """Make torch's threads compute the same in every process; to be called before its first large operation.

    With its default, MKL_DYNAMIC, MKL may use fewer threads, and a sum in another order differs in the last bits. Set
    through torch, since the environment variable would also lift MKL's limit of one thread per physical core.

    A first call of MKL's vector functions by several threads at once is now and then inaccurate in one of them
    (docs/mkl_first_call.md). So each function is called here first, by one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            values = torch.full((8,), 0.5, dtype=dtype)
            for name in VECTOR_FUNCTIONS:
                getattr(torch, name)(values)
            for name in ACTIVATIONS:
                getattr(torch.nn.functional, name)(values)
            values.pow(1.5), values.softmax(0), values.norm()
    torch.set_num_threads(threads)
