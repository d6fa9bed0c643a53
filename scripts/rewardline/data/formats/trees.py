"""Message trees with ranks, as OpenAssistant has them: nested in a row, or a message in each row.

Sibling answers with ranks (0 is best) give pairs for the conversation that leads to them. A message that was deleted or
failed its review is excluded, with all messages below it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rewardline.data.conversation import ROLES, Reject, describe_type, read_text
from rewardline.data.formats.drafts import Draft, Drafts, Rows
from rewardline.data.formats.fields import RowFields, read_number
from rewardline.data.formats.grouped import Contribution, GroupItem, group_key
from rewardline.data.formats.ranked import ranked_pairs
from rewardline.data.formats.settings import FormatSettings
from rewardline.data.schema import Message


class TreeMessage(NamedTuple):
    """A message of a tree; `name` and `parent` are ids of messages."""

    name: str
    parent: str
    role: str
    text: str
    rank: float | None
    excluded: Reject | None


Messages = list[tuple[int, TreeMessage]]
"""The messages of a tree, each with the index of its row."""


def read_tree(row: RowFields) -> Drafts:
    """A complete tree: the first message, each message with its `replies`."""
    root = row.optional("prompt")
    if not isinstance(root, dict):
        if row.mapped("prompt") or "replies" not in row.record:
            raise Reject("not_tree", f"the prompt is {describe_type(root)}, not a message with replies")
        root = row.record
    items: Messages = []
    waiting: list[tuple[object, str]] = [(root, "")]
    while waiting:
        value, parent = waiting.pop()
        if not isinstance(value, dict):
            raise Reject("not_messages", f"a message of the tree is {describe_type(value)}")
        message = _read_message(value, str(len(items)), parent, value.get("rank"))
        items.append((len(items), message))
        replies = value.get("replies") or []
        if not isinstance(replies, list):
            raise Reject("not_messages", f"the replies to a message are {describe_type(replies)}, not a list")
        waiting += [(reply, message.name) for reply in reversed(replies)]
    for draft, *_ in pair_siblings(items, row.settings):
        if not (isinstance(draft, Reject) and draft.reason == "one_answer"):  # no pair could come of it
            yield draft


def read_tree_message(row: RowFields) -> GroupItem[TreeMessage]:
    """The message of a row; the best answers come first in a tree."""
    tree, name, parent = (_read_id(row, field) for field in ("tree", "id", "parent"))
    if not name:
        raise Reject("bad_id", "the id is empty")
    message = _read_message(row.record, name, parent, row.optional("rank"))
    rank = float("inf") if message.rank is None else message.rank
    order = rank, message.role, message.text, name, parent, message.excluded is None
    return GroupItem(group_key(tree), order, message)


def _read_id(row: RowFields, field: str) -> str:
    value = row.optional(field) if field == "parent" else row.required(field)
    if value is None and field == "parent":
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Reject("bad_id", f"the {field} is {describe_type(value)}, not an id")
    return read_text(str(value), f"the {field}")


def _read_message(value: Mapping[str, object], name: str, parent: str, rank: object) -> TreeMessage:
    """A message; its text under `text` or `content`."""
    name_of_role = value.get("role")
    role = ROLES.get(name_of_role.strip().lower()) if isinstance(name_of_role, str) else None
    if role is None:
        raise Reject("bad_role", f"a message of the tree has the role {str(name_of_role)[:50]!r}")
    text = value.get("text") if value.get("text") is not None else value.get("content")
    text = read_text(text, "a message of the tree")
    excluded = None
    if value.get("deleted") is True:
        excluded = Reject("deleted", "the message was deleted")
    elif value.get("review_result") is False:
        excluded = Reject("failed_review", "the message failed its review")
    number = None if rank in (None, "") else read_number(rank, "the rank")
    return TreeMessage(name, parent, role, text, number, excluded)


def pair_siblings(items: Messages, settings: FormatSettings) -> Iterator[Contribution]:
    """The drafts of a tree's messages; every message left out is named once."""
    children: dict[str, Messages] = defaultdict(list)
    seen: set[str] = set()
    for index, message in items:
        if message.name in seen:
            yield Contribution(Reject("duplicate", "the tree has another message of the same id"), (index,))
            continue
        seen.add(message.name)
        children[message.parent].append((index, message))
    waiting: list[tuple[str, list[Message], Rows, Reject | None]] = [("", [], (), None)]
    reached: set[str] = set()
    while waiting:
        name, prompt, path, excluded = waiting.pop()
        answers: Messages = []
        for index, message in children[name]:
            reached.add(message.name)
            reject = excluded or message.excluded
            if reject:
                yield Contribution(reject, (index,))
                reject = Reject("below_" + reject.reason.removeprefix("below_"), "a message above it is excluded")
            elif message.role == "assistant" and name:
                answers.append((index, message))
            turns: list[Message] = [*prompt, {"role": message.role, "content": message.text}]
            waiting.append((message.name, turns, (*path, index), reject))
        yield from _pair_answers(prompt, answers, path, settings, name)
    for index, message in items:
        if message.name not in reached:
            yield Contribution(Reject("no_parent", "the message above it is not there"), (index,))


def _pair_answers(
    prompt: list[Message], answers: Messages, path: Rows, settings: FormatSettings, name: str
) -> Iterator[Contribution]:
    ranked = [(index, message.text, message.rank) for index, message in answers if message.rank is not None]
    for index, message in answers:
        if message.rank is None and len(answers) > 1:
            yield Contribution(Reject("no_rank", "the answer has no rank"), (index,))
    if len(answers) == 1 or (len(ranked) == 1 and len(answers) > 1):
        index = (ranked or answers)[0][0]
        yield Contribution(Reject("one_answer", "no other answer to the same message has a rank"), (index,))
        return
    for better, worse, _, confidence in ranked_pairs([-rank for _, _, rank in ranked], settings):
        (one, chosen, _), (two, rejected, _) = ranked[better], ranked[worse]
        yield Contribution(Draft(prompt, chosen, rejected, None, confidence, name), (*path, one, two))
