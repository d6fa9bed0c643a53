import numpy as np

from rewardline.model.batch import collate

from support.tokens import random_comparison


def test_packed_and_padded_rows_hold_the_same_sequences() -> None:
    rng = np.random.default_rng(0)
    comparisons = [random_comparison(rng, 4, [3, 5, 1]), random_comparison(rng, 0, [2, 4])]
    packed = collate(comparisons, "shared_prefix", 0)
    padded = collate(comparisons, "padded", 0)
    full = [np.concatenate([c.prefix, tail]) for c in comparisons for tail in c.tails]
    assert packed.input_ids.shape == (1, sum(c.tokens for c in comparisons))
    assert padded.attention_mask is not None
    assert padded.attention_mask.sum(1).tolist() == [len(row) for row in full]
    for batch in (packed, padded):
        assert batch.input_ids.flatten()[batch.ends].tolist() == [row[-1] for row in full]
        assert batch.position_ids.flatten()[batch.ends].tolist() == [len(row) - 1 for row in full]
    assert packed.chosen.tolist() == [0, 0, 3]
    assert packed.rejected.tolist() == [1, 2, 4]
