from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tunesmith.data.curation.fences import code_spans, has_open_fence, looks_like_code, without_code, without_fenced

MARKS = st.sampled_from(["```", "~~~", "````", "```py", "text", "", "x = 1", "~~~~", "`a`", "- b"])


def pieces(text: str) -> list[str]:
    return [text[start:end] for start, end in code_spans(text)]


@given(st.lists(MARKS, max_size=12))
def test_fenced_blocks_are_those_of_a_markdown_parser(lines):
    text = "\n".join(lines)
    blocks = [token.map for token in MarkdownIt("commonmark").parse(text) if token.type == "fence"]
    inside = {number for first, end in blocks for number in range(first, end)}
    spans = code_spans(text)
    at = 0
    for number, line in enumerate(lines):
        if line.startswith(("```", "~~~", "text", "x")):
            assert any(start <= at and at + len(line) <= end for start, end in spans) == (number in inside)
        at += len(line) + 1


def test_inline_code_is_found_by_runs_of_one_length():
    assert pieces("a `b` c ``d ` e`` f `g") == ["`b`", "``d ` e``"]
    assert pieces("a `b\n\nc` d") == []
    assert pieces("see ```x\n\ny``` there") == ["```x\n\ny```"]


def test_code_is_taken_out():
    text = "Before\n```py\nx = 1\n```\nand `y` after"
    assert without_code(text).split() == ["Before", "and", "after"]
    assert without_fenced(text).split() == ["Before", "and", "`y`", "after"]


def test_a_fence_that_is_not_closed_is_noticed():
    assert has_open_fence("Look:\n```python\nprint(1)")
    assert has_open_fence("Look: ```python\nprint(1)")
    assert has_open_fence("```\na\n```\nand\n```\nb")
    assert not has_open_fence("```\na\n```\nand\n~~~\nb\n~~~")
    assert not has_open_fence("```\na```\nand\n```\nb\n```")  # closed carelessly
    assert not has_open_fence("Write ``` to open a block.")
    assert not has_open_fence("Look: ```python\nprint(1)\n``` There.")


def test_many_backticks_take_no_time():
    assert code_spans(" ".join("`" * (1 + number % 300) for number in range(600)))


def test_bare_code_is_told_from_prose():
    assert looks_like_code("def f(x):\n    return x + 1")
    assert looks_like_code("#include <iostream>\nint main() {\n  return 0;\n}")
    assert looks_like_code("SELECT name FROM people;")
    assert not looks_like_code("Dear Ann,\n\nthe class starts at nine; return the book by then.\n\nYours, Bob")
    assert not looks_like_code("")
