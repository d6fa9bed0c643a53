"""Message trees with ranks, as OpenAssistant has them: nested in a row, or a message in each row.

Sibling answers with ranks (0 is best) give pairs for the conversation that leads to them. A message that was deleted or
failed its review takes no part, nor does what hangs below it.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from rewardline.data.conversation import ROLES, Message, Reject, clean, kind
from rewardline.data.formats.chosen_rejected import Draft, Drafts
from rewardline.data.formats.drafts import Facts, Rows
from rewardline.data.formats.fields import Fields, Record, number
from rewardline.data.formats.grouped import Contribution, digest
from rewardline.data.formats.options import Options
from rewardline.data.formats.ranked import duels


class Node(NamedTuple):
    """A message with its place in a tree; `key` is the tree's."""

    key: str
    name: str
    parent: str
    role: str
    text: str
    rank: float | None
    barred: Reject | None

    @property
    def order(self) -> tuple[Any, ...]:
        """The best first; the same for all orders of rows."""
        rank = float("inf") if self.rank is None else self.rank
        return rank, self.role, self.text, self.name, self.parent, self.barred is None


def tree(record: Record, fields: Fields, options: Options) -> Drafts:
    """A whole tree: the first message, each message with its `replies`."""
    root = fields.optional(record, "prompt")
    if not isinstance(root, dict):
        if fields.mapped("prompt") or "replies" not in record:
            raise Reject("not_tree", f"the prompt is {kind(root)}, not a message with replies")
        root = record
    nodes: list[tuple[int, Node]] = []
    waiting: list[tuple[Any, str]] = [(root, "")]
    while waiting:
        value, parent = waiting.pop()
        if not isinstance(value, dict):
            raise Reject("not_messages", f"a message of the tree is {kind(value)}")
        node = _node(value, "", str(len(nodes)), parent, value.get("rank"))
        nodes.append((len(nodes), node))
        replies = value.get("replies") or []
        if not isinstance(replies, list):
            raise Reject("not_messages", f"the replies to a message are {kind(replies)}, not a list")
        waiting += [(reply, node.name) for reply in reversed(replies)]
    for draft, *_ in grow(nodes, options):
        if not (isinstance(draft, Reject) and draft.reason == "one_answer"):  # no pair could come of it
            yield draft


def _node(value: Record, key: str, name: str, parent: str, rank: Any) -> Node:
    """A message; its text under `text` or `content`."""
    spoken = value.get("role")
    role = ROLES.get(spoken.strip().lower()) if isinstance(spoken, str) else None
    if role is None:
        raise Reject("bad_role", f"a message of the tree has the role {str(spoken)[:50]!r}")
    text = clean(value.get("text") if value.get("text") is not None else value.get("content"), "a message of the tree")
    barred = None
    if value.get("deleted") is True:
        barred = Reject("deleted", "the message was deleted")
    elif value.get("review_result") is False:
        barred = Reject("failed_review", "the message failed its review")
    return Node(key, name, parent, role, text, None if rank in (None, "") else number(rank, "the rank"), barred)


def grow(nodes: list[tuple[int, Node]], options: Options) -> Iterator[Contribution]:
    """The drafts of a tree's messages, each with its record's position; every message left out is named once."""
    children: dict[str, list[tuple[int, Node]]] = defaultdict(list)
    seen: set[str] = set()
    for place, node in nodes:
        if node.name in seen:
            yield Reject("duplicate", "the tree has another message of the same id"), Facts(), (place,)
            continue
        seen.add(node.name)
        children[node.parent].append((place, node))
    waiting: list[tuple[str, list[Message], Rows, Reject | None]] = [("", [], (), None)]
    reached: set[str] = set()
    while waiting:
        name, prompt, path, barred = waiting.pop()
        answers: list[tuple[int, Node]] = []
        for place, node in children[name]:
            reached.add(node.name)
            reject = barred or node.barred
            if reject:
                yield reject, Facts(), (place,)
                reject = Reject("below_" + reject.reason.removeprefix("below_"), "a message above it takes no part")
            elif node.role == "assistant" and name:
                answers.append((place, node))
            waiting.append((node.name, [*prompt, {"role": node.role, "content": node.text}], (*path, place), reject))
        yield from _siblings(prompt, answers, path, options, name)
    for place, node in nodes:
        if node.name not in reached:
            yield Reject("no_parent", "the message above it is not there"), Facts(), (place,)


def _siblings(
    prompt: list[Message], answers: list[tuple[int, Node]], path: Rows, options: Options, name: str
) -> Iterator[Contribution]:
    ranked = [(place, node) for place, node in answers if node.rank is not None]
    for place, node in answers:
        if node.rank is None and len(answers) > 1:
            yield Reject("no_rank", "the answer has no rank"), Facts(), (place,)
    if len(answers) == 1 or (len(ranked) == 1 and len(answers) > 1):
        place = (ranked or answers)[0][0]
        yield Reject("one_answer", "no other answer with a rank stands beside it"), Facts(), (place,)
        return
    for duel in duels([-node.rank for _, node in ranked if node.rank is not None], options):
        (one, better), (two, worse) = ranked[duel.better], ranked[duel.worse]
        draft: Draft | Reject = Reject("tie", "the answers have the same rank")
        if not duel.tied or options.ties == "keep":
            draft = Draft(prompt, better.text, worse.text, None, 0.5 if duel.tied else None, name)
        yield draft, Facts(), (*path, one, two)


class TreeReader:
    """Messages of trees, one a row, grouped by tree."""

    def item(self, record: Record, fields: Fields, _options: Options) -> Node:
        """The message of a row."""
        names = []
        for field in ("tree", "id", "parent"):
            value = fields.optional(record, field) if field == "parent" else fields.required(record, field)
            if value is None and field == "parent":
                value = ""
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise Reject("bad_id", f"the {field} is {kind(value)}, not an id")
            names.append(clean(str(value), f"the {field}"))
        if not names[1]:
            raise Reject("bad_id", "the id is empty")
        return _node(record, digest(names[0]), names[1], names[2], fields.optional(record, "rank"))

    def drafts(self, items: list[tuple[int, Node]], options: Options) -> Iterator[Contribution]:
        """The pairs of the tree, and why messages have no part in any."""
        yield from grow(items, options)
