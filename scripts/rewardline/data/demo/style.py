"""How the demo's answers and conversations are put together.

Good and flawed answers are composed by the same function from the same parts, so that only the flaw tells them apart.
"""

from random import Random

from rewardline.data.demo.item import Item, Maker
from rewardline.data.demo.words import lines

OPENERS = lines("""
    Sure.
    Of course.
    Good question.
    Thanks for asking.
    Happy to help.
    Let me see.
    Certainly.
    No problem.
    Glad you asked.
    Sorry for the wait.
    Here is my answer.
    That is easy to say.
""")
CHAT_OPENERS = lines("""
    Thanks for telling me.
    It is good to hear from you.
    Thank you for sharing this.
    Oh, I see.
    I hear you.
""")
CLOSERS = lines("""
    I hope that helps.
    Let me know if you need anything else.
    Just ask if anything is unclear.
    Have a nice day!
    Feel free to ask more.
    Is there anything else you need?
    I can explain more if you like.
    Do ask if you have another question.
""")
CHAT_CLOSERS = lines("""
    Tell me more if you like.
    I am happy to listen.
    I would love to hear more.
    Have a nice day!
    How do you feel now?
""")
ASIDES = ("By the way, ", "Also, ", "Besides, ")
LEADS = ("From what you told me, ", "Going by your message, ", "As far as I can tell, ")

SYSTEMS = lines("""
    You are a helpful assistant.
    You are a friendly and honest assistant.
    You answer questions for the guests of a small hotel.
    You help the pupils of a village school.
    You are the assistant of a busy family.
    You work at the front desk of a club.
    Be kind and get the facts right.
    Answer politely and stay on the topic.
""")
GREETINGS = ("Hi!", "Hello!", "Hello there.", "Good morning.", "Hey, quick question.", "Hi, I need some help.")
THANKS = ("Thanks!", "Thank you in advance.", "Please help.", "I would be glad to know.")
REPLIES = lines("""
    Hello! How can I help you?
    Hi, what can I do for you?
    Good to see you. What do you need?
    Hello! What would you like to know?
""")
NOTED = lines("""
    I will keep that in mind.
    Got it. What would you like to know?
    All right, I have read it.
    Thank you, noted.
""")
LINKS = ("", "", "And", "Thanks.", "Good, thanks.", "One more thing.")

Message = dict[str, str]


def lower(text: str) -> str:
    """`text`, which goes on after a lead, without the capital of its first word; names keep theirs."""
    first = text.split(maxsplit=1)[0]
    return text[0].lower() + text[1:] if first in ("The", "A", "An", "It", "You", "For", "Yes,", "No,") else text


def openers(item: Item) -> tuple[str, ...]:
    """The sentences with which an answer to `item` may begin."""
    return CHAT_OPENERS if item.chat else OPENERS


def closers(item: Item) -> tuple[str, ...]:
    """The sentences with which an answer to `item` may end."""
    return CHAT_CLOSERS if item.chat else CLOSERS


def compose(rng: Random, item: Item, value: str, rich: float, opener: str = "", closer: str = "") -> str:
    """An answer to `item` with `value` in the place of what is asked for.

    `rich` in 0..1 is how likely each optional part is; a given `opener` or `closer` is always there.
    """
    core = rng.choice(item.answers)
    if not opener and rng.random() < rich:
        opener = rng.choice(openers(item))
    if not opener and item.asides and core[0] != "{" and rng.random() < rich / 3:
        core = rng.choice(LEADS) + lower(core.replace("{}", value))
    extras = [extra for extra in rng.sample(item.extras, min(2, len(item.extras))) if rng.random() < rich]
    if extras and item.asides and rng.random() < 0.3:
        extras[0] = rng.choice(ASIDES) + lower(extras[0])
    if not closer and rng.random() < rich:
        closer = rng.choice(closers(item))
    return " ".join(filter(None, (opener, core, *extras, closer))).replace("{}", value)


def _ask(rng: Random, item: Item, question: str) -> str:
    """The user's whole message: the facts and the question, in either order."""
    if not item.context:
        return question
    if item.context.endswith("\n"):
        return f"{item.context}{question}"
    return f"{question} {item.context}" if rng.random() < 0.1 else f"{item.context} {question}"


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def dialogue(rng: Random, item: Item, earlier: Maker, instruction: str = "") -> list[Message]:
    """The messages that lead to the question of `item`.

    About a quarter of them are conversations of several turns: the facts come first and the question later, or a
    question on the same facts comes before it, or one on something else (`earlier`), or a greeting. An `instruction`
    on the form of the answer is part of the last message or is given as the system message.
    """
    system, question = "", item.question
    if instruction and rng.random() < 0.25:
        system = instruction
    elif instruction:
        question = f"{question} {instruction}"
    elif rng.random() < 0.07:
        system = rng.choice(SYSTEMS)
    kind = rng.random()
    if kind < 0.09 and item.context and not item.context.endswith("\n"):
        turns = [_user(item.context), _assistant(rng.choice(NOTED)), _user(question)]
    elif kind < 0.15 and item.asides:
        before, reply = rng.choice(item.asides)
        link = rng.choice(LINKS)
        question = f"And {question[0].lower()}{question[1:]}" if link == "And" else f"{link} {question}".strip()
        turns = [_user(_ask(rng, item, before)), _assistant(reply), _user(question)]
    elif kind < 0.17:
        past = earlier(rng)
        answer = rng.choice(past.answers).replace("{}", past.right)
        turns = [_user(_ask(rng, past, past.question)), _assistant(answer), _user(_ask(rng, item, question))]
    elif kind < 0.23:
        turns = [_user(rng.choice(GREETINGS[:4])), _assistant(rng.choice(REPLIES)), _user(_ask(rng, item, question))]
    else:
        text = _ask(rng, item, question)
        if rng.random() < 0.08 and not item.chat:
            text = f"{rng.choice(GREETINGS)} {text}"
        elif rng.random() < 0.05 and not item.chat:
            text = f"{text} {rng.choice(THANKS)}"
        turns = [_user(text)]
    return [{"role": "system", "content": system}, *turns] if system else turns
