"""Rows converted and recognised with settings as keyword arguments."""

from typing import Any

import pytest

from rewardline.data.conversation import Reject
from rewardline.data.formats.detect import Survey, choose
from rewardline.data.formats.drafts import PreferencePair
from rewardline.data.formats.registry import GROUPED, converter, grouping
from rewardline.data.formats.settings import FormatSettings

from support.shapes import Row


def texts(shape: str, row: Row, fields: dict[str, str] | None = None, **options: Any) -> list[tuple[str, str]]:
    convert = converter(FormatSettings(format=shape, fields=fields or {}, **options))
    return [(pair.chosen, pair.rejected) for pair in convert(row)]


def one(shape: str, row: Row, fields: dict[str, str] | None = None, **options: Any) -> PreferencePair:
    (pair,) = converter(FormatSettings(format=shape, fields=fields or {}, **options))(row)
    return pair


def reason(shape: str, row: Any, fields: dict[str, str] | None = None, **options: Any) -> str:
    """Why a row is rejected."""
    with pytest.raises(Reject) as caught:
        converter(FormatSettings(format=shape, fields=fields or {}, **options))(row)
    assert caught.value.detail
    return caught.value.reason


def detect(row: Any, **settings: Any) -> str | list[str]:
    """The one format that fits a row for certain, else a list of those that may be meant."""
    (matches,) = Survey([row], FormatSettings(**settings)).matches or ([],)
    certain = [match.format for match in matches if not match.ask]
    return certain[0] if len(certain) == 1 else certain + [match.format for match in matches if match.ask]


def read(rows: list[Row], **settings: Any) -> list[PreferencePair]:
    """The pairs of rows, by what they say of themselves and the settings."""
    chosen, explanation = choose(rows, FormatSettings(**settings))
    assert chosen, explanation
    if chosen.format in GROUPED:
        group = grouping(chosen)
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(group.key(row), []).append(row)
        return [pair for members in groups.values() for pair in group.convert(members)]
    convert = converter(chosen)
    return [pair for row in rows for pair in convert(row)]


def asked_for(rows: list[Row], **settings: Any) -> str:
    """What the user is asked for where rows do not say enough of themselves."""
    chosen, explanation = choose(rows, FormatSettings(**settings))
    assert chosen is None
    return explanation
