"""Each public dataset of the table, by rows in its shape: what comes out, and what must not."""

from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.fields import Record, row_filter
from rewardline.data.formats.grouped import GroupReject
from rewardline.data.formats.registry import GROUPED, check, converter, grouping
from rewardline.workflow.config import DatasetEntry
from rewardline.workflow.resolve import ConfigError, load_public_datasets, resolve

from support.paths import ROOT
from support.shapes import SHAPES, Row, compared, shp

KNOWN = load_public_datasets(ROOT / "config" / "datasets.yaml")


def entry(hub: str, **keys: Any) -> DatasetEntry:
    """An entry of the configuration with this hub dataset, as the stages see it."""
    chosen: Row = {
        "datasets": {"d": {"hub": hub, "revision": "main", **keys}, "other": {"demo": {}}},
        "mixtures": {"m": {"datasets": {"d": 1.0}}},
        "models": {"x": {"path": "owner/name"}},
        "runs": {"r": {"mixture": "m", "model": "x"}},
    }
    return resolve(chosen, KNOWN).datasets["d"]


def pairs_of(hub: str, rows: list[Row], **keys: Any) -> tuple[list[PreferencePair], list[str]]:
    """The pairs of rows, and the reasons why rows or pairs are left out."""
    shape = entry(hub, **keys)
    found: list[PreferencePair] = []
    left: list[str] = []
    keep = row_filter(shape.where)
    kept: list[Record] = []
    for row in rows:
        try:
            kept.append(keep(row))
        except Reject as reject:
            left.append(reject.reason)
    if shape.format in GROUPED:
        group = grouping(shape)
        groups: dict[str, list[Record]] = {}
        for record in kept:
            groups.setdefault(group.key(record), []).append(record)
        for members in groups.values():
            try:
                pairs = group.convert(members)
            except GroupReject as reject:
                left += [each.reason for each in reject.unused.values()]
            else:
                found += pairs
                left += [each.reason for each in pairs.unused.values()]
        return found, left
    convert = converter(shape)
    for record in kept:
        try:
            found += convert(record)
        except Reject as reject:
            left.append(reject.reason)
    return found, left


@pytest.mark.parametrize("hub", KNOWN)
def test_rows_of_a_known_dataset(hub: str) -> None:
    rows, expected, left = SHAPES[hub]
    found, reasons = pairs_of(hub, rows)
    assert sorted(reasons) == sorted(left)
    assert sorted((pair.chosen, pair.rejected) for pair in found) == sorted(item[:2] for item in expected)
    for pair in found:
        margin = next(item[2] for item in expected if item[:2] == (pair.chosen, pair.rejected))
        assert pair.margin == (margin if margin is None else pytest.approx(margin))
        assert pair.prompt[-1] == {"role": "user", "content": "Q"}


def test_every_entry_is_sound() -> None:
    for hub, keys in KNOWN.items():
        shape = entry(hub)
        check(shape)
        assert "#" not in str(shape.hub) and shape.format != "auto" and "revision" not in keys


def test_an_entrys_own_keys_win() -> None:
    assert entry("stanfordnlp/SHP").fields == {"prompt": "history", "margin": "score_ratio", "subset": "domain"}
    own = entry("stanfordnlp/SHP", fields={"odds": "score_ratio"}, min_margin=2, split="test")
    assert own.fields["odds"] == "score_ratio" and own.fields["prompt"] == "history"
    assert (own.min_margin, own.split) == (2, "test")
    (pair,), left = pairs_of(
        "stanfordnlp/SHP", [shp(1, 8, 2), shp(0, 2, 3)], fields={"odds": "score_ratio"}, min_margin=2
    )
    assert (pair.chosen, pair.confidence, pair.margin, left) == ("A", 0.8, 4.0, ["small_margin"])
    other = entry("nvidia/HelpSteer2#preference", format="auto")
    assert (other.hub, other.data_dir, other.fields, other.values) == (
        "nvidia/HelpSteer2",
        "preference",
        {},
        {},
    )
    ties, left = pairs_of("openai/webgpt_comparisons", [compared(0, 0)], ties="keep")
    assert [pair.confidence for pair in ties] == [0.5] and not left
    assert entry("HuggingFaceH4/ultrafeedback_binarized", min_margin=None).min_margin is None
    assert entry("owner/unknown").format == "auto"


def test_a_join_names_a_data_set() -> None:
    with pytest.raises(ConfigError, match=r"datasets\.d\.join\.a\.dataset: 'othr' is not defined; did you mean"):
        entry("owner/name", join={"a": {"dataset": "othr", "key": "id"}})
    with pytest.raises(ConfigError, match="key"):
        entry("owner/name", join={"a": {"dataset": "other"}})
    assert entry("owner/name", join={"a": {"dataset": "other", "key": "id"}}).join["a"].value is None
