"""A ranking by each attribute of the answers, instead of one by their weighted sum."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from rewardline.data.conversation import Reject
from rewardline.data.formats.drafts import RowPairs
from rewardline.data.formats.fields import Record
from rewardline.data.formats.grouped import Grouping, GroupReject
from rewardline.data.formats.registry import converter, grouping
from rewardline.data.formats.settings import FormatSettings


def attribute_converter(settings: FormatSettings) -> Callable[[Record], RowPairs]:
    """`registry.converter` with positions: the pairs by each attribute, whose name is their subset."""
    converters = {name: converter(each, positions=True) for name, each in _each(settings)}

    def convert(record: Record) -> RowPairs:
        found: dict[str, RowPairs | Reject] = {}
        for name, convert_by in converters.items():
            try:
                found[name] = convert_by(record)
            except Reject as reject:
                found[name] = reject.with_traceback(None)
        pairs = _merged(found)
        if not pairs:
            raise next(part for part in found.values() if isinstance(part, Reject))
        return pairs

    return convert


def attribute_grouping(settings: FormatSettings) -> Grouping:
    """`registry.grouping` in the same way. Which group a row belongs to does not depend on the attribute."""
    groupings = {name: grouping(each, positions=True) for name, each in _each(settings)}

    def key(record: Record) -> str:
        reject: Reject | None = None
        for each in groupings.values():
            try:
                return each.key(record)
            except Reject as found:
                reject = reject or found
        raise reject or Reject("no_attributes", "there are no attributes to rank by")

    def convert(records: Sequence[Record]) -> RowPairs:
        found: dict[str, RowPairs | Reject] = {}
        for name, each in groupings.items():
            try:
                found[name] = each.convert(records)
            except GroupReject as reject:
                found[name] = reject.with_traceback(None)
        pairs = _merged(found)
        if not pairs:
            first = next(part for part in found.values() if isinstance(part, GroupReject))
            raise GroupReject(first, first.unused)
        return pairs

    return Grouping(key, convert)


def _each(settings: FormatSettings) -> Iterator[tuple[str, FormatSettings]]:
    for name in settings.attributes:
        yield name, settings.replace(attributes={name: 1.0})


def _merged(found: Mapping[str, RowPairs | Reject]) -> RowPairs:
    """The pairs of all attributes; a row is unused if it is for each of them, and a ranking that is missing counts."""
    skipped: Counter[str] = Counter()
    unused: dict[int, Reject] = {}
    result = RowPairs()
    for name, part in found.items():
        if isinstance(part, Reject):
            skipped[part.reason] += 1
            unused |= part.unused if isinstance(part, GroupReject) else {}
            continue
        result.extend(pair._replace(subset=name) for pair in part)
        result.rows += part.rows
        skipped.update(part.skipped)
        unused |= part.unused
        result.changed = result.changed or part.changed
    used = {row for rows in result.rows for row in rows}
    result.skipped = dict(skipped)
    result.unused = {row: reject for row, reject in unused.items() if row not in used}
    return result
