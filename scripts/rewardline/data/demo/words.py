"""Words and small tables of the demo data. Few and common on purpose, so that a tiny model meets each of them often."""


def words(text: str) -> tuple[str, ...]:
    """The words of `text`."""
    return tuple(text.split())


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs `a:b` of `text`, separated by spaces."""
    return tuple((left, right) for left, _, right in (word.partition(":") for word in text.split()))


def lines(text: str) -> tuple[str, ...]:
    """The lines of `text` without the empty ones."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def table(text: str) -> tuple[tuple[str, ...], ...]:
    """The cells of each line of `text`, which are separated by bars."""
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines(text))


NAMES = words("Nina Omar Lena Paul Mia Jonas Sara Felix")

# Singular and plural.
THINGS = pairs(
    "pen:pens cup:cups book:books lamp:lamps ball:balls coin:coins hat:hats key:keys "
    "spoon:spoons map:maps box:boxes drum:drums egg:eggs"
)

PLACES = words("kitchen garage attic garden cellar bedroom")
CITIES = words("Oslo Lima Madrid Toronto Dublin Boston")
JOBS = words("nurse baker teacher pilot farmer engineer")
COLOURS = words("red blue green yellow white black")
PETS = words("dog cat rabbit parrot pony turtle")
HOBBIES = words("chess tennis hiking singing sailing fishing")
VENUES = words("hall school park church museum theatre")
EVENTS = words("meeting concert lesson party exam tour picnic match")

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

CATEGORIES = {
    "fruits": words("apple pear plum cherry lemon mango peach grape"),
    "vegetables": words("carrot onion potato tomato cabbage pepper spinach leek"),
    "animals": words("horse tiger rabbit eagle whale goat camel otter"),
    "colours": words("red blue green yellow purple white black pink"),
    "sports": words("tennis football rowing boxing cycling swimming skiing golf"),
    "instruments": words("piano violin guitar flute drum trumpet harp cello"),
    "drinks": words("water milk tea coffee juice cocoa lemonade cider"),
}

# A country and its capital, a word and its opposite, an animal and its young.
CAPITALS = pairs(
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Japan:Tokyo Egypt:Cairo Greece:Athens Norway:Oslo "
    "Sweden:Stockholm Portugal:Lisbon Austria:Vienna Poland:Warsaw Ireland:Dublin Peru:Lima Cuba:Havana "
    "Kenya:Nairobi China:Beijing Finland:Helsinki Denmark:Copenhagen Canada:Ottawa"
)
OPPOSITES = pairs(
    "hot:cold big:small fast:slow early:late open:closed full:empty happy:sad hard:soft dark:bright wet:dry "
    "old:young rich:poor loud:quiet heavy:light"
)
BABIES = pairs(
    "dog:puppy cat:kitten cow:calf sheep:lamb horse:foal hen:chick bear:cub duck:duckling pig:piglet "
    "goose:gosling deer:fawn"
)

# What is counted, where, and how many there are.
WORLD_COUNTS = table("""
    days | in a week | 7
    months | in a year | 12
    hours | in a day | 24
    minutes | in an hour | 60
    letters | in the English alphabet | 26
    eggs | in a dozen | 12
    players | in a football team | 11
    fingers | on one hand | 5
    wheels | on a tricycle | 3
    wheels | on a bicycle | 2
    legs | on a spider | 8
    legs | on an ant | 6
    strings | on a violin | 4
    years | in a century | 100
    years | in a decade | 10
    sides | in a triangle | 3
""")

# Verbs in the present and in the past.
VERBS = pairs("walks:walked goes:went runs:ran drives:drove comes:came returns:returned moves:moved travels:travelled")
