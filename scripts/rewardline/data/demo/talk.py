"""Demo talk: users who want advice, and users who tell what happened to them."""

from random import Random

from rewardline.data.demo.item import Item, capital
from rewardline.data.demo.words import lines, table, words

GOAL_TIMES = (
    "",
    "",
    "",
    " this year",
    " this month",
    " this spring",
    " this summer",
    " before the holidays",
    " from now on",
)
RELATIONS = words("sister brother mother father friend neighbour uncle aunt cousin colleague")

# A goal, the same as a gerund, and four pieces of advice; on three lines each.
_ADVICE = table("""
    sleep better | sleeping better
    go to bed at the same time every night | keep the phone out of the bedroom
    avoid coffee in the evening | read a calm book before turning off the light
    learn a new language | learning a new language
    practise a little every day | talk with native speakers
    write new words on small cards | listen to songs in that language
    save more money | saving more money
    write down every expense | cook at home more often
    set a small budget for each week | put some money aside on payday
    run faster | running faster
    warm up before each run | mix short sprints with long easy runs
    rest for a day after hard training | wear light shoes that fit well
    calm a nervous dog | calming a nervous dog
    speak to the dog in a soft voice | go for longer walks
    give the dog a quiet corner | reward calm behaviour with a treat
    grow tomatoes | growing tomatoes
    choose a sunny spot | water the soil and not the leaves
    tie the stems to a stick | use rich soil with some compost
    bake good bread | baking good bread
    weigh the flour and the water | let the dough rest overnight
    heat the oven well before baking | let the loaf cool before cutting it
    remember names | remembering names
    say the name aloud right away | link each name to a picture
    write the names down after a talk | use the name once when saying goodbye
    prepare for a job interview | preparing for a job interview
    read about the company | practise answers with a friend
    prepare some questions to ask | arrive a little early
    make new friends | making new friends
    join a local club | invite people for a cup of tea
    ask open questions and listen | say hello to the people next door
    clean a burnt pan | cleaning a burnt pan
    soak the pan in warm water | boil some vinegar in the pan
    rub the spots with baking soda | use a wooden spoon to lift the crust
    write a short speech | writing a short speech
    start with a personal story | keep to one main message
    read the text aloud and cut it | end with a clear thank you
    take better photos | taking better photos
    shoot in the soft light of the morning | get closer to the subject
    keep the background simple | hold the camera with both hands
    drink more water | drinking more water
    keep a bottle on the desk | drink a glass before every meal
    add a slice of lemon | set a reminder on the phone
    pack for a long trip | packing for a long trip
    make a list a week before | roll the clothes to save space
    leave room for things bought on the way | keep papers in the hand luggage
    read more books | reading more books
    carry a book everywhere | read a few pages before sleep
    join a reading group | stop reading books that are boring
    get up earlier | getting up earlier
    put the alarm far from the bed | open the curtains at once
    plan something nice for breakfast | move the bedtime forward step by step
    remove a coffee stain | removing a coffee stain
    rinse the cloth with cold water | dab the stain and never rub it
    use a little soap and vinegar | wash the cloth before the stain dries
""")
ADVICE = tuple(
    first + second + third for first, second, third in zip(*(_ADVICE[start::3] for start in range(3)), strict=True)
)

# What the user did, and the same as a gerund: good news, then bad news.
GOOD_NEWS = table("""
    I baked bread for the first time | baking bread for the first time
    I passed my driving test | passing your driving test
    I finished painting my flat | painting your whole flat
    I adopted a small dog | adopting a small dog
    I got a new job | getting a new job
    I ran my first race | running your first race
    I met an old friend | meeting an old friend
    I won a chess game | winning a chess game
    I planted a cherry tree | planting a cherry tree
    I learned to swim | learning to swim
    I wrote my first poem | writing your first poem
    I sold my first picture | selling your first picture
""")
BAD_NEWS = table("""
    I lost my wallet | losing your wallet
    I missed the last train | missing the last train
    I broke my favourite mug | breaking your favourite mug
    I failed my maths exam | failing your maths exam
    I burnt the dinner | burning the dinner
    I caught a bad cold | catching a bad cold
    I had an argument with my brother | arguing with your brother
    I forgot my friend's birthday | forgetting your friend's birthday
    I spilled tea on my laptop | spilling tea on your laptop
    I hurt my knee | hurting your knee
    I slept very badly | sleeping so badly
    I got lost in the city | getting lost in the city
""")
NEWS_TIMES = lines("""
    today
    this morning
    yesterday
    last night
    last week
    on Friday
    on Sunday
    two days ago
""")

# How the user goes on, what the answer says, and what it may add.
GOOD_FEELINGS = (
    ".",
    " and I am so happy.",
    " and I wanted to tell someone.",
    ". I still can't believe it.",
    " and my family is proud.",
    ". It feels great.",
    " and now I want to celebrate.",
    ". It took me a long time.",
)
BAD_FEELINGS = (
    ".",
    " and I feel bad about it.",
    " and I wanted to tell someone.",
    ". I still can't believe it.",
    " and now I am tired.",
    ". It was not a good day.",
    " and I don't know what to do.",
    ". I am a bit sad.",
)
GOOD_ANSWERS = lines("""
    Congratulations on {}!
    I am happy for you, because {} is wonderful.
    {} is something to be proud of.
    {} must feel great.
    {} is a good reason to celebrate.
""")
BAD_ANSWERS = lines("""
    I am sorry to hear that, because {} is no fun.
    {} must feel awful.
    {} can happen to anyone.
    {} is hard, and I am sorry.
    I can see that {} made you sad.
""")
GOOD_EXTRAS = lines("""
    Enjoy the moment.
    You can be proud of yourself.
    What will you do next?
    Your hard work has paid off.
    I hope there is more to come.
""")
BAD_EXTRAS = lines("""
    I hope that tomorrow is a better day.
    Take some time for yourself.
    Is there something I can do?
    Things will look brighter soon.
    A cup of tea may help a little.
""")


def advice(rng: Random) -> Item:
    """How the user, or somebody they know, can reach a goal."""
    goal, doing, *tips = rng.choice(ADVICE)
    first, second, third, fourth = rng.sample(tips, 4)
    when = rng.choice(GOAL_TIMES)
    relation = rng.choice(RELATIONS) if rng.random() < 0.6 else ""
    if rng.random() < 0.5:
        wish = rng.choice(
            ("{} to {}{}.", "{} to {}{}, but it is hard.", "{} to {}{} and asked me to help.")[: 3 if relation else 2]
        )
        wants = rng.choice(("wants", "hopes", "is trying") if relation else ("want", "hope", "am trying"))
        context = wish.format(f"My {relation} {wants}" if relation else f"I {wants}", goal, when)
        question = rng.choice(("What would you suggest?", "Any ideas?", "What could help?", "What is a good start?"))
    else:
        context = ""
        asker = f"my {relation}" if relation else "I"
        question = rng.choice(
            (
                f"How can {asker} {goal}{when}?",
                f"What should {asker} do to {goal}{when}?",
                f"Do you have tips for {doing}{when}?",
            )
        )
    you = f"your {relation}" if relation and relation in context + question else "you"
    return Item(
        context=context,
        question=question,
        answers=(
            f"{capital(you)} could {first}.",
            f"{capital(you)} could {first} and {second}.",
            f"For {doing}, it helps to {first}.",
            f"It helps to {first}, and also to {second}.",
        ),
        topic=doing,
        extras=(f"It is also wise to {third}.", f"Another idea is to {fourth}.", "Small steps work best."),
    )


def news(rng: Random) -> Item:
    """The user tells what happened; the answer is kind and fits."""
    good = rng.random() < 0.5
    what, doing = rng.choice(GOOD_NEWS if good else BAD_NEWS)
    when = rng.choice(NEWS_TIMES)
    feelings = GOOD_FEELINGS if good else BAD_FEELINGS
    told = f"{capital(when)} {what}" if rng.random() < 0.3 else f"{what} {when}"
    answers = GOOD_ANSWERS if good else BAD_ANSWERS
    extras = GOOD_EXTRAS if good else BAD_EXTRAS
    return Item(
        question=f"{told}{rng.choice(feelings)}",
        answers=tuple(capital(answer.replace("{}", doing)) for answer in answers),
        topic=doing,
        extras=tuple(rng.sample(extras, 3)),
        chat=True,
    )
