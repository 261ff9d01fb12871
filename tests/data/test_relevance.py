from tunesmith.data.curation.relevance import relevance

ASKED = "Explain how a steam engine turns heat into motion."
ABOUT = (
    "A steam engine burns coal to heat water until it boils. The steam presses on a piston, whose motion turns a "
    "wheel; the heated steam then leaves, and the engine begins its cycle again with fresh water from the boiler."
)
OTHER = (
    "To bake bread, mix flour, salt, yeast and tap liquid, knead the dough for ten minutes, let it rise until doubled, "
    "shape a loaf, and put it on a tray for half an hour until the crust is brown and sounds hollow."
)


def test_a_response_about_the_instruction_scores_above_another():
    about, other = relevance(ASKED, ABOUT), relevance(ASKED, OTHER)
    assert about is not None and other is not None
    assert 1 >= about > 0.5 > 0.1 > other >= 0


def test_what_can_not_be_told():
    assert relevance(ASKED, "Yes.") is None
    assert relevance("And why?", "the and for are " * 20) is None
    assert relevance("Is it?", ABOUT) is None
