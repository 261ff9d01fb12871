import os
from pathlib import Path

import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.coverage.worked import is_worked
from tunesmith.data.sources.read import read_source

DATA = Path(os.environ.get("TUNESMITH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def row(answer, reasoning=None, asked="How many apples are left?"):
    return Conversation("s:1", (Message("user", asked), Message("assistant", answer, reasoning=reasoning)), "s")


@pytest.mark.parametrize(
    "answer",
    [
        "She had 9 apples and ate 4 of them, so 9 - 4 = 5.\n#### 5",
        "Half of ten is five, which leaves us with \\boxed{5}.",
        "<think>Nine less four.</think>5",
        "Let's solve it step by step. Nine apples less four apples are five apples.",
        "There were nine apples and four are gone. So the answer is 5.",
        "Of nine apples four were eaten yesterday.\nThe answer is 5",
    ],
)
def test_working_is_recognised(answer):
    assert is_worked(row(answer))
    assert not is_worked(row("5", asked=answer))  # what the user says is no answer


@pytest.mark.parametrize(
    "answer",
    [
        "5",
        "#### 5",
        "The answer is 5.",
        "So the answer is 5.",
        "<think>\n</think>5",
        "Mix the flour step by step.",
        "A cake for all the family:\n#### Flour\nMix it.",
    ],
)
def test_a_bare_answer_shows_none(answer):
    assert not is_worked(row(answer))


def test_reasoning_beside_the_answer_and_plain_text():
    assert is_worked(row("5", reasoning="Nine less four."))
    assert not is_worked(row("5", reasoning=" \n"))
    assert not is_worked(Conversation.from_text("s:1", "She had nine apples and ate some. So the answer is 5."))


def test_real_data():
    if not (DATA / "gsm8k_train.jsonl").exists():
        pytest.skip(f"no {DATA}: set TUNESMITH_DATA to the folder of the real data")
    names = {"instruction": "question", "response": "answer"}
    solved = read_source("gsm8k", DATA / "gsm8k_train.jsonl", sample=2000, seed=0, map=names).rows
    assert sum(map(is_worked, solved)) >= 0.99 * len(solved)
    played = read_source("roleplay", DATA / "roleplay.json").rows
    assert sum(map(is_worked, played)) <= 0.01 * len(played)
