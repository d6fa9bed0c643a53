"""The first losses of every architecture and objective are those that were recorded, to 1e-6."""

import json

import pytest

from support import golden_losses


@pytest.fixture(scope="module")
def computed() -> dict[str, list[float]]:
    return golden_losses.compute()


@pytest.fixture(scope="module")
def golden() -> dict[str, list[float]]:
    values: dict[str, list[float]] = json.loads(golden_losses.FILE.read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("case", golden_losses.CASES)
def test_first_losses_are_the_golden_ones(
    case: str, computed: dict[str, list[float]], golden: dict[str, list[float]]
) -> None:
    assert len(golden[case]) == golden_losses.STEPS
    assert computed[case] == pytest.approx(golden[case], abs=1e-6), "if meant: python tests/golden/regenerate.py"


def test_every_golden_run_has_its_case(golden: dict[str, list[float]]) -> None:
    assert list(golden) == list(golden_losses.CASES)
