import torch

from rewardline.model.packing.layout import Segment, build_layout, gather, scatter

SEGMENTS = [Segment(0, 10, (5, 7)), Segment(22, 0, (3, 4)), Segment(29, 12, (1, 1))]
TOTAL = 43


def test_scatter_and_gather_are_each_others_gradient() -> None:
    indices = build_layout(SEGMENTS, [0]).keys
    rows, padded = torch.randn(TOTAL, 3, dtype=torch.double), torch.randn(len(indices.rows), 3, dtype=torch.double)
    assert torch.equal(gather(scatter(rows, indices), indices), rows)
    assert torch.autograd.gradcheck(lambda x: scatter(x, indices), rows.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: gather(x, indices), padded.requires_grad_())
