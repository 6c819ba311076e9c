"""What a counterfactual gain compares a turn's own observation with."""

from igpo.tree.groups import other_observations


def test_random_observations_come_from_other_questions_and_follow_from_the_turn(caplog):
    rows = [
        {"question_id": f"q{number}", "sample": 0, "turn": turn, "tool": "web_search"}
        | {"observation_ids": [number, turn], "hit_ids": ["d"]}
        for number in range(6)
        for turn in range(4)
    ]
    drawn = other_observations(rows, 3)
    assert set(drawn) == {(row["question_id"], 0, row["turn"]) for row in rows if row["turn"]}
    for (question_id, _, _), observations in drawn.items():
        assert len({tuple(ids) for ids in observations}) == 3
        assert all(f"q{number}" != question_id and turn for number, turn in observations)
    assert drawn == other_observations(rows, 3)
    assert len({repr(observations) for observations in drawn.values()}) > 6
    assert not caplog.records
    assert other_observations(rows[:4], 3) == {("q0", 0, turn): [] for turn in (1, 2, 3)}
    assert "3 of 3 search turns have a gain of 0" in caplog.text


def test_what_names_an_error_or_no_results_stands_for_no_document(caplog):
    rows = [
        {"question_id": f"q{number}", "sample": 0, "turn": turn, "tool": "web_search"}
        | {"observation_ids": [number, turn], "hit_ids": ["d"] if (number, turn) == (1, 2) else []}
        for number in range(3)
        for turn in range(3)
    ]
    drawn = other_observations(rows, 3)
    own = {("q1", 0, 1): [], ("q1", 0, 2): []}
    assert drawn == {(row["question_id"], 0, row["turn"]): [[1, 2]] for row in rows if row["turn"]} | own
    assert "2 of 6 search turns" in caplog.text
