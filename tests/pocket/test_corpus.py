import re

from tunesmith.pocket.corpus import document, documents

SUM = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")


def test_a_document_is_a_pure_function_of_seed_and_index():
    assert [document(3, 7), document(3, 8)] == list(documents(3, 2, start=7))
    assert document(3, 7) != document(4, 7)


def test_documents_hardly_ever_repeat():
    texts = list(documents(5, 20_000))
    assert len(set(texts)) > 0.999 * len(texts)


def test_documents_of_different_seeds_share_almost_nothing():
    assert len(set(documents(1, 5_000)) & set(documents(2, 5_000))) <= 5


def test_every_sum_that_is_not_called_wrong_is_right():
    checked = 0
    for text in documents(6, 5_000):
        for match in SUM.finditer(text):
            if '"' in text:  # quoted claims may be wrong, and are then called so
                continue
            left, sign, right, result = match.groups()
            expected = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
            assert int(result) == expected, text
            checked += 1
    assert checked > 500


def test_articles_and_spacing_are_grammatical():
    for text in documents(7, 5_000):
        if re.search(r"\bdef |print\(", text):
            continue  # code has indents, and arguments called a
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou\W]|  |\s[.,]|\.\.|\{|\}|\bNone\b", text), text
        assert text.strip() and text == text.rstrip()


def test_nobody_follows_an_instruction_in_the_corpus():
    for text in documents(8, 5_000):
        assert not re.search(r"(?i)instruction|### |assistant|<\|im_|answer:|question:", text), text
