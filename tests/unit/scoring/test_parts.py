"""Finished parts of scoring jobs."""

from pathlib import Path

import pytest

from rewardline.core.artifacts import write_sealed
from rewardline.core.errors import UserError
from rewardline.scoring.parts import FinishedParts, share_of, verified_weights


def test_content_of_another_part_or_key_is_not_taken(tmp_path: Path) -> None:
    parts, other = FinishedParts(tmp_path, "key"), FinishedParts(tmp_path, "other")
    parts.save(0, b"scores")
    assert parts.load(0) == b"scores"
    for folder, name in (("key", "000001"), ("other", "000000")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.scores").write_bytes((tmp_path / "key" / "000000.scores").read_bytes())
    assert parts.load(1) is None
    assert other.load(0) is None
    other.delete_others()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("total", [0, 1, 5, 64])
def test_jobs_share_all_parts_evenly(total: int) -> None:
    for count in (1, 2, 7):
        shares = [share_of(total, number, count) for number in range(count)]
        assert [part for share in shares for part in share] == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_model_whose_training_has_diverged_is_said_to_have_no_weights(tmp_path: Path) -> None:
    write_sealed(tmp_path / "run.json", {"weights_sha256": None, "diverged": "the loss is not finite at step 3"})
    with pytest.raises(UserError, match=r"has no weights, as its training has diverged \(the loss is .* step 3\)"):
        verified_weights(tmp_path)
