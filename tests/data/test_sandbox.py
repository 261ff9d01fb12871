import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, UndefinedError

from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.sandbox import LONGEST, METHODS, compile_expression, compile_text, without

HARMFUL = [
    "{{ ''.__class__ }}",
    "{{ x['__class__'] }}",
    "{{ x|attr('__class__') }}",
    "{{ x.format(y) }}",
    "{{ '%99999999d' % 1 }}",
    "{{ 'a' * 10**10 }}",
    "{{ 2 ** 99999999 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ lipsum(10**6) }}",
    "{{ cycler('a').next() }}",
    "{% set x = x ~ x %}",
    "{% set x %}{{x}}{{x}}{% endset %}",
    "{% macro f() %}{{ f() }}{% endmacro %}",
    "{% for a in b recursive %}{{ loop(b) }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends x %}",
    "{{ x|center(10**9) }}",
    "{{ x.ljust(999999999) }}",
    "{{ x|indent(999999999) }}",
    "{{ x|map(attribute='y') }}",
    "{{ __builtins__ }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
]


@pytest.mark.parametrize("source", HARMFUL, ids=[text[:30] for text in HARMFUL])
def test_what_no_prompt_needs_is_refused_before_any_row(source):
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"not allowed|no filter|nested too deeply"):
        compile_text(source)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("source", ["{{ a", "{% if a %}", "{{ a b }}", "{% fi a %}", "{{ a | }}"])
def test_faults_of_form_are_named(source):
    with pytest.raises(ValueError, match="is no template that can be read"):
        compile_text(source)


@pytest.mark.parametrize("source", ["a b", "a ==", "", "a * 2", "a.__class__", "range(3)"])
def test_faults_of_expressions_are_named(source):
    with pytest.raises(ValueError):
        compile_expression(source)


words = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@settings(max_examples=200)
@given(words, st.integers(-5, 5), st.lists(words, max_size=4), st.booleans())
def test_texts_are_what_plain_jinja_writes(word, number, many, flag):
    source = (
        "{{a}}: {{ n + 1 }}, {{ a|upper|trim }}\n{% if flag and n > 0 %}\nyes {{n}}\n{% else %}\nno\n{% endif %}\n"
        "{% for one in many %}{{loop.index}}. {{one}}{% if not loop.last %}, {% endif %}{% endfor %}"
        "{{ many[0].split(' ')[0] if many else a.strip() }}{{ many|join('; ') }} {{ a ~ n }}"
    )
    values = {"a": word, "n": number, "many": many, "flag": flag}
    plain = Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    assert compile_text(source)(values) == plain.render(values)


def test_names_are_the_columns_and_not_what_loops_bind():
    text = compile_text("{{a}}{% for b in c %}{{b}}{{loop.index}}{{d.e}}{% endfor %}{{ f|default('') }}")
    assert text.names == {"a", "c", "d", "f"}
    assert compile_expression("choices.label.index(key)").names == {"choices", "key"}


def test_expressions_give_values():
    row = {"choices": {"label": ["A", "B"], "text": ["x", "y"]}, "key": "B", "a": 1, "b": 2}
    assert compile_expression("choices.label.index(key)")(row) == 1
    assert compile_expression("choices.text")(row) == ["x", "y"]
    assert compile_expression("[a, b]")(row) == [1, 2]
    assert compile_expression("a == 1 and not b > 2")(row) is True
    with pytest.raises(UndefinedError):
        compile_expression("choices.words")(row)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_only_texts_and_numbers_are_written(value):
    with pytest.raises(Rejected) as fault:
        compile_text("x {{a}}")({"a": value})
    assert fault.value.reason == "not_text"


def test_numbers_are_written_as_json_writes_them():
    assert compile_text("{{a}} {{b}} {{c}}")({"a": True, "b": 1.5, "c": 3}) == "true 1.5 3"


def test_markup_in_a_row_is_only_text():
    assert compile_text("{{a}}")({"a": "{{ 7*7 }}<b>{% raw %}"}) == "{{ 7*7 }}<b>{% raw %}"


def test_long_texts_are_refused_however_they_come_to_be():
    half = {"a": "x" * (LONGEST // 2 + 1), "many": ["y"] * 2000}
    for source in (
        "{{a}}{{a}}",
        "{{ a|replace('x', 'xxx') }}",
        "{{ many|join(a) }}",
        "{% for b in many %}{{a}}{% endfor %}",
    ):
        with pytest.raises(Rejected) as fault:
            compile_text(source)(half)
        assert fault.value.reason == "too_long"


def test_methods_are_those_of_values():
    assert all(any(hasattr(kind, name) for kind in (str, list, dict)) for name in METHODS)


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.text("cd", max_size=3)), max_size=5), st.text("ab", max_size=3))
def test_without_leaves_out_what_stands_between(parts, last):
    text = "".join(f"{kept}<<{gone}>>" for kept, gone in parts) + last
    assert without(text, "<<", ">>") == "".join(kept for kept, _ in parts) + last


def test_without_leaves_what_is_not_closed():
    assert without("a<<b", "<<", ">>") == "a<<b"
    assert without("a<<b>>c<<d", "<<", ">>") == "ac<<d"
    assert without("a", "", "") == "a"
