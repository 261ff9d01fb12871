import re
from collections import Counter

import pytest

from tunesmith.pocket.tasks import conversation, conversations, phrasings, tasks
from tunesmith.pocket.world import RESIDENTS, TOWN_FACTS

ROWS = list(conversations(1, 12_000))


def rows_of(task):
    return [row for row in ROWS if row.task == task]


def test_a_row_is_a_pure_function_of_seed_and_index():
    assert conversation(1, 11) == ROWS[11]
    assert conversation(2, 11).messages != ROWS[11].messages


def test_the_world_yields_enough_clusters_tasks_and_phrasings():
    assert len(phrasings()) >= 12
    assert all(len(group) >= 2 for group in phrasings().values())
    for group in phrasings().values():
        for task, templates in group.items():
            assert len(set(templates)) == len(templates) >= 8, task
    assert {row.task for row in ROWS} == {task for _, task in tasks()}


def test_at_least_a_tenth_has_several_turns_and_some_show_their_reasoning():
    assert sum(len(row.messages) > 2 for row in ROWS) / len(ROWS) >= 0.10
    assert sum(" = " in row.response and "The answer is" in row.response for row in ROWS) > 300


def test_rows_are_well_formed():
    for row in ROWS:
        assert [m.role for m in row.messages] == ["user", "assistant"] * (len(row.messages) // 2)
        assert all(m.content == m.content.strip() and m.content for m in row.messages)
        assert not any(re.search(r"[{}]|\bNone\b", m.content) for m in row.messages), row
        assert row.phrasing.startswith(f"{row.task}/")


def test_rows_of_one_item_ask_for_the_same_thing():
    answers = {}
    for row in ROWS:
        if row.task in ("resident_home", "town_region", "opposite", "date_step", "plain_sum", "predict_output"):
            assert answers.setdefault(row.item, row.response) == row.response


def test_facts_are_those_of_the_world():
    for row in rows_of("resident_home"):
        name = next(n for n in RESIDENTS if re.search(rf"\b{n}\b", row.messages[0].content))
        assert row.response == f"{name} lives in {RESIDENTS[name].town}."
    for row in rows_of("town_product"):
        name = next(n for n in TOWN_FACTS if n in row.messages[0].content)
        assert row.response == f"{name} is known for {TOWN_FACTS[name].product}."


@pytest.mark.parametrize("task", ["story_question", "notice_question", "find_price", "find_people"])
def test_answers_of_reading_tasks_stand_in_the_text(task):
    for row in rows_of(task):
        for part in row.response[:-1].split(" and "):
            bare = re.sub(r"^(the|a|an|to|by) ", "", part, flags=re.I).lower()
            assert bare in row.messages[0].content.lower(), row


def test_the_warmest_day_is_the_warmest():
    for row in rows_of("warmest_day"):
        text = row.messages[0].content
        degrees = {day: int(t) for day, t in re.findall(r"(\w+day)[^.]*?(\d+) degrees", text)}
        pick = max if "warmest" in row.response else min
        assert row.response.split()[0] == pick(degrees, key=degrees.get), row


def test_worked_sums_are_right():
    for task in ("purchase_total", "collection_total"):
        for row in rows_of(task):
            left, sign, right, total, answer = re.fullmatch(
                r"(\d+) ([*+-]) (\d+) = (\d+)\. The answer is (\d+)(?: coins)?\.", row.response
            ).groups()
            expected = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
            assert expected == int(total) == int(answer)
            assert left in row.messages[0].content and right in row.messages[0].content


def test_sorted_numbers_are_sorted():
    for row in rows_of("sort_numbers"):
        given = sorted(map(int, re.findall(r"\d+", row.messages[0].content)))
        assert [int(x) for x in row.response.split(", ")] == given


def test_functions_run_and_programs_print_what_is_said(capsys):
    for row in rows_of("write_function")[:100]:
        scope: dict = {}
        exec(row.response, scope)
        assert callable(scope[re.search(r"def (\w+)", row.response)[1]])
    for row in rows_of("predict_output")[:100]:
        lines = [x for x in row.messages[0].content.split("\n\n") if re.match(r"print|for |[a-z] = ", x)]
        exec(lines[0], {})
        assert capsys.readouterr().out.strip() == row.response


def test_yes_and_no_are_balanced():
    for task in ("claim_check", "group_logic", "same_meaning"):
        share = Counter(row.response for row in rows_of(task))["Yes."] / len(rows_of(task))
        assert 0.35 < share < 0.68, (task, share)
