"""The attention of packed rows in one call of FlashAttention's variable-length kernel (Dao 2023, arXiv 2307.08691).

A comparison's prefix and first tail are one causal sequence. Each further tail is a sequence of its own, whose keys are
gathered: the prefix and the tail. The kernel aligns the causal mask at the end, so that a tail sees all of its prefix.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


@dataclass(frozen=True, eq=False)
class Sequences:
    """The N sequences of a packed row, whose queries are its rows in their order.

    Attributes:
        keys: int64 [M], the rows of the keys of each sequence, one sequence after the other.
        query_starts, key_starts: int32 [N + 1], where each sequence begins, and the end of the last one.
        longest_query, longest_key: most queries and most keys of a sequence.
    """

    keys: Tensor
    query_starts: Tensor
    key_starts: Tensor
    longest_query: int
    longest_key: int


def causal_sequences(parts: Iterable[Sequence[tuple[int, int, int]]], runs: Tensor) -> Sequences:
    """The sequences of comparisons whose `parts` are (start, end, end without padding) of prefix and tails, in rows.

    `runs`: what each row sees, see `blocks.visible_runs`. Padding sees no padding: each such row is a sequence.
    """
    queries: list[int] = []
    keys: list[Tensor] = []
    for (prefix, prefix_end, _), *tails in parts:
        for number, (start, end, real) in enumerate(tails):
            prefix_keys = torch.arange(prefix, prefix_end)
            first = prefix if number == 0 else start
            if real > first:
                queries.append(real - first)
                keys.append(torch.cat([prefix_keys, torch.arange(start, real)]))
            padding = row_sequences(runs[:, real:end])
            queries += [1] * (end - real)
            keys += padding
    return _sequences(queries, keys)


def single_queries(runs: Tensor) -> Sequences:
    """Sequences of one query each, which see `runs` of keys."""
    return _sequences([1] * runs.shape[1], row_sequences(runs))


def row_sequences(runs: Tensor) -> list[Tensor]:
    """The keys that each query sees."""
    return [torch.cat([torch.arange(a, b), torch.arange(c, d)]) for a, b, c, d in runs.T.tolist()]


def _sequences(queries: list[int], keys: list[Tensor]) -> Sequences:
    lengths = [len(rows) for rows in keys]
    starts = [torch.tensor([0, *counts]).cumsum(0).int() for counts in (queries, lengths)]
    return Sequences(torch.cat(keys), starts[0], starts[1], max(queries), max(lengths))


def attend(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None) -> Tensor:
    """Query [1, heads, Q, d] to keys and values [1, key heads, T, d]: [1, heads, Q, d]."""
    keys, values = (states[0].transpose(0, 1).index_select(0, sequences.keys) for states in (key, value))
    output = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        keys,
        values,
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor)
    return output.transpose(0, 1)[None]
