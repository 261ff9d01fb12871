"""The pocket world: a small, fixed set of people, towns, animals and things, and the facts that hold among them.

Every fact is a pure function of the tables below and of WORLD_SEED. The corpus (`corpus.py`) states these facts many
times in many ways, so that a base model can know them; the tasks (`tasks.py`) ask for them. Residents have fixed facts;
visitors are the people of made-up scenes, where everything must be read from the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tunesmith.base.random import python_stream

WORLD_SEED = 1729

RESIDENT_NAMES = (
    "Ada Agnes Albert Alma Amir Anita Anton Arlo Astrid Basil Beatrix Boris Bruno Carla Cedric Celia Clara Conrad Cora "
    "Dalia Daphne Dario Desmond Dora Edgar Edith Elena Elias Elsa Emil Enid Ernest Esther Eva Felix Fiona Flora Frank "
    "Freda George Gilda Gloria Greta Gustav Hanna Harold Hazel Hector Helga Henrik Hilda Hugo Ida Igor Ines Irma Isaac "
    "Ivan Ivy Jasper Joan Jonas Judith Julius Karl Katya Klaus Lars Laura Leo Lionel Lotte Louis Luisa Magnus Malik "
    "Marcel Marta Matilda Maxim Mirko Nadia Nell Nina Norman Olaf Olga Oscar Otto Paula Pedro Petra Quentin Ralph Ramona "
    "Rita Roland Rosa"
).split()
VISITOR_NAMES = (
    "Abel Alice Amos Anna Ben Bella Carl Chloe Clive Daisy Dan David Della Elmer Ella Emma Eric Ethan Finn Frida Gwen "
    "Grace Hank Helen Henry Holly Iris Jack Jane Jill John Kate Kim Lena Liam Lily Lucy Luke Mara Mark Mary Mia Mona Ned "
    "Nils Nora Owen Pam Paul Peter Rose Ruth Sam Sara Simon Sofia Theo Tina Toby Tom Vera Wendy Will Zoe"
).split()

JOBS = (
    "baker teacher farmer doctor tailor sailor painter carpenter gardener nurse miller cook potter weaver judge singer "
    "hunter driver clerk smith"
).split()
FOODS = "soup bread cheese rice fish pie porridge noodles cake stew pancakes salad honey beans eggs".split()
HOBBIES = (
    "fishing dancing reading swimming chess singing sailing painting cooking knitting running skating climbing gardening "
    "archery"
).split()
COLOURS = "red blue green yellow black white brown grey orange purple pink".split()
PETS = "cat dog rabbit parrot pony goat turtle duck mouse hen".split()
REGIONS = "Northmark Southvale Eastmoor Westfold Highland Lowmere Midshire Farcoast".split()
TOWNS = (
    "Ashford Barrow Birchton Brookfield Coldwater Copperhill Dunmere Eastbury Elmstead Fairhaven Foxley Glenwood Goldcrest "
    "Greenhollow Harbury Hillcross Ironbridge Kingsport Lakeside Larkhill Longmeadow Maplewick Millbrook Northgate Oakham "
    "Otterburn Pinehurst Quarrytown Redcliff Riverton Rosedale Saltmarsh Silverton Stonehaven Summerfield Thornbury "
    "Underwood Waterford Whitby Winterton"
).split()
RIVERS = "Arn Belm Corry Dane Esk Fallow Garn Hull Isen Jory Kell Lune".split()
PRODUCTS = "wool glass salt apples pottery silk paper butter candles copper boats barrels wine clocks shoes carpets timber".split()
LANDMARKS = (
    "lighthouse,old castle,stone bridge,windmill,clock tower,town wall,museum,harbour,market hall,abbey,theatre,library"
).split(",")

# animal: (class, legs, food, habitat, sound)
ANIMALS: dict[str, tuple[str, str, str, str, str]] = {
    "owl": ("bird", "two", "mice", "the forest", "hoots"),
    "goose": ("bird", "two", "grass", "the farm", "honks"),
    "hen": ("bird", "two", "corn", "the farm", "clucks"),
    "duck": ("bird", "two", "weeds", "the pond", "quacks"),
    "crow": ("bird", "two", "seeds", "the field", "caws"),
    "parrot": ("bird", "two", "nuts", "the jungle", "squawks"),
    "eagle": ("bird", "two", "rabbits", "the mountains", "screams"),
    "robin": ("bird", "two", "worms", "the garden", "sings"),
    "trout": ("fish", "no", "flies", "the river", "makes no sound"),
    "salmon": ("fish", "no", "shrimps", "the river", "makes no sound"),
    "shark": ("fish", "no", "fish", "the sea", "makes no sound"),
    "herring": ("fish", "no", "plankton", "the sea", "makes no sound"),
    "carp": ("fish", "no", "weeds", "the pond", "makes no sound"),
    "dog": ("mammal", "four", "meat", "the house", "barks"),
    "cat": ("mammal", "four", "mice", "the house", "meows"),
    "horse": ("mammal", "four", "hay", "the stable", "neighs"),
    "cow": ("mammal", "four", "grass", "the meadow", "moos"),
    "pig": ("mammal", "four", "corn", "the farm", "grunts"),
    "sheep": ("mammal", "four", "grass", "the meadow", "bleats"),
    "goat": ("mammal", "four", "leaves", "the mountains", "bleats"),
    "wolf": ("mammal", "four", "meat", "the forest", "howls"),
    "bear": ("mammal", "four", "berries", "the forest", "growls"),
    "fox": ("mammal", "four", "rabbits", "the forest", "barks"),
    "lion": ("mammal", "four", "meat", "the plains", "roars"),
    "mouse": ("mammal", "four", "seeds", "the field", "squeaks"),
    "rabbit": ("mammal", "four", "clover", "the meadow", "makes no sound"),
    "whale": ("mammal", "no", "plankton", "the sea", "sings"),
    "bat": ("mammal", "two", "moths", "the cave", "squeaks"),
    "bee": ("insect", "six", "nectar", "the hive", "buzzes"),
    "ant": ("insect", "six", "crumbs", "the ground", "makes no sound"),
    "beetle": ("insect", "six", "leaves", "the forest", "hums"),
    "cricket": ("insect", "six", "grass", "the meadow", "chirps"),
    "moth": ("insect", "six", "nectar", "the garden", "makes no sound"),
    "snake": ("reptile", "no", "mice", "the desert", "hisses"),
    "turtle": ("reptile", "four", "leaves", "the pond", "makes no sound"),
    "lizard": ("reptile", "four", "flies", "the desert", "makes no sound"),
    "crocodile": ("reptile", "four", "fish", "the swamp", "growls"),
}

# thing: (category, made of or grown on, used to / for)
THINGS: dict[str, tuple[str, str, str]] = {
    "hammer": ("tool", "iron", "drive nails"),
    "saw": ("tool", "steel", "cut wood"),
    "spade": ("tool", "iron", "dig holes"),
    "rake": ("tool", "wood", "gather leaves"),
    "axe": ("tool", "steel", "chop logs"),
    "needle": ("tool", "steel", "sew clothes"),
    "brush": ("tool", "wood", "paint walls"),
    "chair": ("piece of furniture", "wood", "sit down"),
    "table": ("piece of furniture", "wood", "eat meals"),
    "bed": ("piece of furniture", "wood", "sleep"),
    "shelf": ("piece of furniture", "wood", "keep books"),
    "bench": ("piece of furniture", "stone", "rest outdoors"),
    "coat": ("piece of clothing", "wool", "keep warm"),
    "hat": ("piece of clothing", "felt", "cover the head"),
    "scarf": ("piece of clothing", "silk", "warm the neck"),
    "glove": ("piece of clothing", "leather", "protect the hand"),
    "boot": ("piece of clothing", "leather", "walk in mud"),
    "belt": ("piece of clothing", "leather", "hold up trousers"),
    "drum": ("instrument", "leather", "beat a rhythm"),
    "flute": ("instrument", "silver", "play tunes"),
    "violin": ("instrument", "wood", "play melodies"),
    "bell": ("instrument", "brass", "call people"),
    "trumpet": ("instrument", "brass", "play marches"),
    "cup": ("vessel", "clay", "drink tea"),
    "bowl": ("vessel", "clay", "hold soup"),
    "jug": ("vessel", "glass", "pour water"),
    "basket": ("vessel", "straw", "carry fruit"),
    "bottle": ("vessel", "glass", "store milk"),
    "kettle": ("vessel", "copper", "boil water"),
    "cart": ("vehicle", "wood", "move hay"),
    "boat": ("vehicle", "wood", "cross rivers"),
    "bicycle": ("vehicle", "steel", "ride to work"),
    "sledge": ("vehicle", "wood", "slide on snow"),
    "wagon": ("vehicle", "wood", "carry goods"),
    "doll": ("toy", "cloth", "play house"),
    "kite": ("toy", "paper", "fly in the wind"),
    "ball": ("toy", "rubber", "play catch"),
    "puzzle": ("toy", "card", "pass the time"),
    "apple": ("fruit", "a tree", "bake pies"),
    "pear": ("fruit", "a tree", "make juice"),
    "plum": ("fruit", "a tree", "make jam"),
    "cherry": ("fruit", "a tree", "decorate cakes"),
    "grape": ("fruit", "a vine", "make wine"),
    "carrot": ("vegetable", "the ground", "feed horses"),
    "onion": ("vegetable", "the ground", "flavour soup"),
    "potato": ("vegetable", "the ground", "fill stews"),
    "cabbage": ("vegetable", "the ground", "make salad"),
    "turnip": ("vegetable", "the ground", "feed sheep"),
}
GOODS = tuple(t for t, (category, _, _) in THINGS.items() if category != "piece of furniture")
PORTABLE = (
    "hammer brush hat scarf glove belt flute bell cup bowl jug basket bottle kettle doll kite ball puzzle needle drum "
    "ring key map letter coin lamp book purse umbrella watch"
).split()

PLACES = (
    "barn,cellar,kitchen,garden,attic,market,mill,church,school,inn,stable,harbour,library,forest,bakery,station,park,"
    "workshop,tower,orchard"
).split(",")
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("old", "new"), ("fast", "slow"), ("happy", "sad"), ("early", "late"),
    ("open", "closed"), ("full", "empty"), ("clean", "dirty"), ("dry", "wet"), ("rich", "poor"), ("strong", "weak"),
    ("light", "heavy"), ("loud", "quiet"), ("long", "short"), ("high", "low"), ("hard", "soft"), ("brave", "afraid"),
    ("cheap", "dear"), ("near", "far"), ("wide", "narrow"), ("young", "aged"), ("sweet", "sour"), ("bright", "dark"),
)  # fmt: skip

# verb: (base, third person, past, ing)
VERBS = (
    ("walk to", "walks to", "walked to", "walking to"),
    ("run to", "runs to", "ran to", "running to"),
    ("ride to", "rides to", "rode to", "riding to"),
    ("hurry to", "hurries to", "hurried to", "hurrying to"),
    ("clean", "cleans", "cleaned", "cleaning"),
    ("visit", "visits", "visited", "visiting"),
    ("leave", "leaves", "left", "leaving"),
    ("paint", "paints", "painted", "painting"),
    ("find", "finds", "found", "finding"),
    ("see", "sees", "saw", "seeing"),
    ("enter", "enters", "entered", "entering"),
    ("build", "builds", "built", "building"),
    ("like", "likes", "liked", "liking"),
    ("guard", "guards", "guarded", "guarding"),
    ("sweep", "sweeps", "swept", "sweeping"),
    ("draw", "draws", "drew", "drawing"),
)

IRREGULAR_PLURALS = {
    "goose": "geese", "mouse": "mice", "sheep": "sheep", "trout": "trout", "salmon": "salmon", "carp": "carp",
    "wolf": "wolves", "shelf": "shelves", "knife": "knives", "cherry": "cherries", "potato": "potatoes", "fox": "foxes",
    "brush": "brushes", "bench": "benches", "watch": "watches", "pony": "ponies", "fish": "fish", "glass": "glasses",
    "box": "boxes", "herring": "herring", "library": "libraries", "church": "churches", "bakery": "bakeries",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resident:
    name: str
    town: str
    job: str
    food: str
    hobby: str
    pet: str
    colour: str


@dataclass(frozen=True, slots=True)
class Town:
    name: str
    region: str
    river: str
    product: str
    landmark: str


def _residents() -> dict[str, Resident]:
    rng = python_stream(WORLD_SEED, "residents")
    return {
        n: Resident(n, *(rng.choice(table) for table in (TOWNS, JOBS, FOODS, HOBBIES, PETS, COLOURS)))
        for n in RESIDENT_NAMES
    }


def _towns() -> dict[str, Town]:
    rng = python_stream(WORLD_SEED, "towns")
    return {n: Town(n, *(rng.choice(table) for table in (REGIONS, RIVERS, PRODUCTS, LANDMARKS))) for n in TOWNS}


RESIDENTS = _residents()
TOWN_FACTS = _towns()


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def count_of(n: int, noun: str) -> str:
    """`3 lamps`, `1 lamp`."""
    return f"{n} {noun if n == 1 else plural(noun)}"


def coins(n: int) -> str:
    return f"{n} coin" if n == 1 else f"{n} coins"


def listing(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def people(rng: Random, count: int) -> list[str]:
    """Different visitors for one scene."""
    return rng.sample(VISITOR_NAMES, count)
