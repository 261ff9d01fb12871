import pytest

from tunesmith.base.errors import UserError
from tunesmith.data.curation.language import check_languages, language_of

TEXTS = {
    "en": "The river was wide, and nobody in the village knew how old the bridge over it might be, or who built it.",
    "de": "Der Fluss war breit und langsam, und niemand im Dorf konnte sagen, wie alt die Brücke wohl sein mochte.",
    "fr": "La rivière était large et lente, et personne au village ne savait dire quel âge pouvait bien avoir le pont.",
    "es": "El río era ancho y lento, y nadie en el pueblo sabía decir cuántos años tenía el puente que lo cruzaba.",
    "zh": "河水又宽又慢，村子里没有人能说出那座桥究竟有多少年的历史，也没有人记得是谁建造的。",
    "ru": "Река была широкой и медленной, и никто в деревне не мог сказать, сколько лет мосту, который её пересекал.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_the_language_of_a_sentence(code):
    said, sureness = language_of(TEXTS[code])
    assert said == code and 0.8 < sureness <= 1
    assert language_of(f"```\nfor x in y: print(x)\n```\n{TEXTS[code]}")[0] == code


@pytest.mark.parametrize(
    "text",
    [
        "", "ok", "No", "Heseltine", "42",
        "x = 3y + 4, \\frac{1}{2} = 0.5, so $x^2 + y^2 = z^2$ and 3 * 4 = 12; 5 + 6 = 11 " * 3,
        "def add(a, b):\n    return a + b\n\nclass Adder:\n    def add(self, a, b):\n        return a + b\n" * 3,
        "18 * 5 = <<18*5=90>>90\n90 / 3 = <<90/3=30>>30\n#### 30\n" * 5, "```\n" + TEXTS["fr"] + "\n```",
    ],
)  # fmt: skip
def test_where_it_can_not_be_told(text):
    assert language_of(text) == ("", 0.0)


def test_unknown_languages_are_refused():
    check_languages(TEXTS)
    with pytest.raises(UserError, match="'english' can't be recognised"):
        check_languages(["en", "english"])
