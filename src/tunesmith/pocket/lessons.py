"""Small systematic skills of the world: order, calendar, tense, opposites, groups, logic and code.

Each skill is a drawn value with exact fields, used twice: the corpus writes it as running text, the tasks ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tunesmith.pocket.world import (
    ANIMALS,
    MONTHS,
    PLACES,
    THINGS,
    VERBS,
    WEEKDAYS,
    a,
    people,
    plural,
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A few different numbers to be put in order."""

    values: tuple[int, ...]

    @classmethod
    def draw(cls, rng: Random, largest: int = 99) -> Numbers:
        return cls(tuple(rng.sample(range(1, largest + 1), rng.randint(3, 5))))

    @property
    def text(self) -> str:
        return ", ".join(map(str, self.values))

    @property
    def ascending(self) -> str:
        return ", ".join(map(str, sorted(self.values)))

    @property
    def descending(self) -> str:
        return ", ".join(map(str, sorted(self.values, reverse=True)))


@dataclass(frozen=True, slots=True)
class Deed:
    """A person does something to a place; told in any tense, affirmed or denied."""

    person: str
    verb: tuple[str, str, str, str]
    place: str

    @classmethod
    def draw(cls, rng: Random) -> Deed:
        return cls(people(rng, 1)[0], rng.choice(VERBS), rng.choice(PLACES))

    @property
    def present(self) -> str:
        return f"{self.person} {self.verb[1]} the {self.place}."

    @property
    def past(self) -> str:
        return f"{self.person} {self.verb[2]} the {self.place}."

    @property
    def future(self) -> str:
        return f"{self.person} will {self.verb[0]} the {self.place}."

    @property
    def negated(self) -> str:
        return f"{self.person} did not {self.verb[0]} the {self.place}."

    @property
    def ongoing(self) -> str:
        return f"{self.person} is {self.verb[3]} the {self.place}."

    @property
    def polite(self) -> str:
        return f"{self.person}, could you please {self.verb[0]} the {self.place}?"

    @property
    def order(self) -> str:
        return f"{self.person}, {self.verb[0]} the {self.place}!"


GROUPS: dict[str, tuple[str, ...]] = {
    **{k: tuple(n for n, f in ANIMALS.items() if f[0] == k) for k in ("bird", "fish", "mammal", "insect", "reptile")},
    **{k: tuple(n for n, f in THINGS.items() if f[0] == k) for k in dict.fromkeys(f[0] for f in THINGS.values())},
}
GROUP_PLURALS = {g: {"fish": "fish", "fruit": "fruit"}.get(g, g.replace("piece", "pieces") if " " in g else plural(g))
                 for g in GROUPS}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OddOneOut:
    """Three members of one group and one stranger."""

    group: str
    words: tuple[str, ...]
    odd: str
    odd_group: str

    @classmethod
    def draw(cls, rng: Random) -> OddOneOut:
        group, other = rng.sample([g for g in sorted(GROUPS) if len(GROUPS[g]) >= 3], 2)
        odd = rng.choice(GROUPS[other])
        words = [*rng.sample(GROUPS[group], 3), odd]
        rng.shuffle(words)
        return cls(group, tuple(words), odd, other)


@dataclass(frozen=True, slots=True)
class Syllogism:
    """A member of a group has what the group has, and only that."""

    member: str
    name: str
    group: str
    claimed: str

    @classmethod
    def draw(cls, rng: Random) -> Syllogism:
        group = rng.choice(sorted(GROUPS))
        claimed = group if rng.random() < 0.5 else rng.choice([g for g in sorted(GROUPS) if g != group])
        return cls(rng.choice(GROUPS[group]), people(rng, 1)[0], group, claimed)

    @property
    def holds(self) -> bool:
        return self.group == self.claimed


@dataclass(frozen=True, slots=True)
class Calendar:
    """A step of one to three from a weekday or a month."""

    start: str
    steps: int
    forward: bool

    @classmethod
    def draw(cls, rng: Random) -> Calendar:
        return cls(rng.choice(WEEKDAYS + MONTHS), rng.randint(1, 3), rng.random() < 0.6)

    @property
    def unit(self) -> str:
        return "day" if self.start in WEEKDAYS else "month"

    @property
    def distance(self) -> str:
        return f"the {self.unit}" if self.steps == 1 else f"{('', '', 'two', 'three')[self.steps]} {self.unit}s"

    @property
    def phrase(self) -> str:
        return f"{self.distance} {'after' if self.forward else 'before'} {self.start}"

    @property
    def answer(self) -> str:
        table = WEEKDAYS if self.unit == "day" else MONTHS
        return table[(table.index(self.start) + (self.steps if self.forward else -self.steps)) % len(table)]


# operation: (what it returns, the expression, names it goes by)
OPERATIONS = {
    "sum": ("the sum of {a} and {b}", "{a} + {b}", ("add", "plus", "total")),
    "difference": ("{a} minus {b}", "{a} - {b}", ("subtract", "minus", "less")),
    "product": ("{a} times {b}", "{a} * {b}", ("multiply", "times", "product")),
    "larger": ("the larger of {a} and {b}", "max({a}, {b})", ("larger", "biggest", "top")),
    "smaller": ("the smaller of {a} and {b}", "min({a}, {b})", ("smaller", "least", "bottom")),
    "double": ("twice {a}", "{a} * 2", ("double", "twice", "two_times")),
    "next": ("{a} plus one", "{a} + 1", ("next", "after", "increase")),
    "square": ("the square of {a}", "{a} * {a}", ("square", "squared", "area")),
    "length": ("the length of {a}", "len({a})", ("length", "size", "count")),
    "first": ("the first item of {a}", "{a}[0]", ("first", "head", "start")),
    "last": ("the last item of {a}", "{a}[-1]", ("last", "tail", "end")),
    "even": ("whether {a} is even", "{a} % 2 == 0", ("is_even", "even", "no_rest")),
}
LETTERS = "abcdhkmnpqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Function:
    """A one-line Python function."""

    operation: str
    name: str
    arguments: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> Function:
        operation = rng.choice(sorted(OPERATIONS))
        _, expression, names = OPERATIONS[operation]
        return cls(operation, rng.choice(names), tuple(rng.sample(LETTERS, 2 if "{b}" in expression else 1)))

    def _fill(self, text: str) -> str:
        return text.format(a=self.arguments[0], b=self.arguments[-1])

    @property
    def purpose(self) -> str:
        return self._fill(OPERATIONS[self.operation][0])

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"

    @property
    def code(self) -> str:
        return f"def {self.signature}:\n    return {self._fill(OPERATIONS[self.operation][1])}"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A short Python program and what it prints."""

    code: str
    output: str

    @classmethod
    def draw(cls, rng: Random) -> Snippet:
        x, y, name = rng.randint(2, 9), rng.randint(2, 9), rng.choice(LETTERS)
        word = rng.choice(sorted(THINGS))
        kind = rng.randrange(5)
        if kind == 0:
            return cls(f"print({x} + {y})", str(x + y))
        if kind == 1:
            return cls(f"{name} = {x}\nprint({name} + {y})", str(x + y))
        if kind == 2:
            return cls(f"{name} = [{x}, {y}, {x + y}]\nprint({name}[{y % 3}])", str((x, y, x + y)[y % 3]))
        if kind == 3:
            return cls(f'print("{word}")', word)
        return cls(f"for {name} in range({x % 4 + 2}):\n    print({name})", "\n".join(map(str, range(x % 4 + 2))))


def whole_group(group: str) -> str:
    """`All geese ...` for logic: the group's plural."""
    return GROUP_PLURALS[group]


def one_of(group: str) -> str:
    return a(group)
