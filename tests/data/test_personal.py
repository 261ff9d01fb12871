import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.curation.personal import KINDS, find_personal, passes_luhn, passes_mod97, redacted


def found(text: str, *kinds) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find_personal(text, kinds or KINDS)]


@pytest.mark.parametrize(
    "kind, data",
    [
        ("email", "ann.lee+news@uni-koeln.de"),
        ("email", "o_brien@mail.gov.uk"),
        ("phone", "+49 30 9018 2035"),
        ("phone", "+1 (212) 736-3100"),
        ("phone", "(212) 736-3100"),
        ("phone", "212-736-3100"),
        ("phone", "+442079460958"),
        # The examples of the SWIFT IBAN registry.
        ("iban", "GB29 NWBK 6016 1331 9268 19"),
        ("iban", "DE89370400440532013000"),
        ("iban", "MT84MALT011000012345MTLCAST001S"),
        ("iban", "NO9386011117947"),
        ("iban", "FR14 2004 1010 0505 0001 3M02 606"),
        # Numbers that payment processors publish for tests.
        ("card", "4012888888881881"),
        ("card", "5105 1051 0510 5100"),
        ("card", "3782 822463 10005"),
        ("card", "6011-0009-9013-9424"),
        ("key", "AKIA" + "Q3ZL7YVN2KD5WPX8"),
        ("key", "ghp_" + "x7Kq2Lm9Zt4Wv8Rb3Yc6Nf1Hs5Gd0Jp2Qa4E"),
        ("key", "sk-proj-" + "t9Xw2Lq7Vb4Nz8Kc3Rm6"),
        ("ip", "81.2.69.142"),
        ("ip", "2a00:1450:4001:81b:0:0:0:200e"),
    ],
)
def test_each_kind_is_found_and_nothing_around_it(kind, data):
    for before, after in (("", ""), ("Mine is ", "."), ("(", ")"), ("it: ", ", and more"), ("\n", "\nBye")):
        assert (kind, data) in found(before + data + after)
        assert redacted(before + data + after, find_personal(before + data + after)) == f"{before}[{kind}]{after}"


def test_numbers_after_a_word_for_phones():
    assert found("Call me at 030 901820.") == [("phone", "030 901820")]
    assert found("Tel.: 0221/4701234") == [("phone", "0221/4701234")]
    assert found("WhatsApp number is 01701239876") == [("phone", "01701239876")]


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com, jane@sample.com, a@b.test, git@github.com, noreply@uni.de, x@y",
        "@app.route and print(a@b) and f@matmul.T(x)",
        "He has 1234567 + 7654321 = 8888888 apples, 12,345,678 in all, at $2125551234.",
        "3.14159265358979 and 2.718281828459045, ISBN 978-3-16-148410-0, 2024-11-24, 10-20-300-4000",
        "Call 555-0123 or (212) 555-0199 or 123-456-7890. Call all 30 of 45 at 12.",
        "fib: 1 1 2 3 5 8 13 21 34 55 89 144 233 377, 4012888888881882, DE89370400440532013001, GB00 0000",
        "AKIAIOSFODNN7EXAMPLE sk-your-key-goes-here-please-12 task-oriented-dialogue-system-2024 ghp_xxxxxxxxxxxx",
        "192.168.0.1 10.0.0.1 127.0.0.1 255.255.255.0 1.2.3 1.2.3.4.5 300.1.1.1 2.0.0.0 12:30:45",
        "The call lasted 1800 2500 seconds; 1,000,000 calls; in call(1234567 * 89)",
        "def phone(x): return x == 1234567890123",
        "",
    ],
)
def test_what_only_looks_like_it_is_left(text):
    assert found(text) == []


def test_only_the_kinds_asked_for():
    text = "ann@uni-koeln.de, 81.2.69.142"
    assert found(text, "ip") == [("ip", "81.2.69.142")]
    assert [one.kind for one in find_personal(text)] == ["email", "ip"]


@given(st.text("0123456789", min_size=12, max_size=18))
def test_luhn_has_one_check_digit_and_sees_each_wrong_digit(digits):
    right = [digits + check for check in "0123456789" if passes_luhn(digits + check)]
    assert len(right) == 1
    wrong = str((int(right[0][3]) + 1) % 10)
    assert not passes_luhn(right[0][:3] + wrong + right[0][4:])


def test_an_iban_with_a_wrong_or_swapped_digit_fails():
    iban = "DE89370400440532013000"
    assert passes_mod97(iban)
    assert not any(passes_mod97(iban[:at] + str((int(iban[at]) + 1) % 10) + iban[at + 1 :]) for at in range(2, 22))
    assert not passes_mod97("DE89730400440532013000")


@given(st.lists(st.sampled_from(["ann@uni-koeln.de", "+49 30 9018 2035", "4012888888881881", "word", "7"]), max_size=8))
def test_nothing_is_left_after_redaction_and_the_rest_stays(parts):
    text = " and ".join(parts)
    clear = redacted(text, find_personal(text))
    assert find_personal(clear) == []
    assert clear.count("[") == sum(bool(re.search(r"@|\+|\d{9}", part)) for part in parts)
    assert clear.count("word") == parts.count("word")
