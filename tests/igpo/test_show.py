"""The printer of trajectories: which one, with what it was worth, and nothing that a terminal acts on."""

import pytest

from igpo import show
from igpo.experiment import schema
from pipeline import storage


def test_show_prints_a_trajectory_with_its_scores(made, capsys):
    folder = made[1][0]
    show.main(["--rollouts", f"{folder}/rollouts.parquet", "--scores", f"{folder}/scores.parquet"])
    text = capsys.readouterr().out
    assert "q1, sample 0: answered" in text
    assert "information gain +0.500" in text
    assert text.rstrip().endswith("answer: Rome")


def test_show_names_a_missing_question(made, capsys):
    with pytest.raises(SystemExit) as end:
        show.main(["--rollouts", f"{made[1][0]}/rollouts.parquet", "--question", "q9"])
    assert end.value.code == 2
    assert "no trajectory of question 'q9'; it has q1" in capsys.readouterr().err


def asked(results, capsys, tmp_path, *options: str) -> str:
    """What `igpo show` prints of an iteration; the question has a supporting passage that was not shown."""
    question = {
        "question_id": "q1",
        "benchmark": "b",
        "question": "Which\x1b[31m \u202ecity?",
        "answers": ["Rome"],
    }
    question |= {"supporting_ids": ["c"], "hops": 1, "split": "train", "type": ""}
    storage.write([question], schema.QUESTIONS, tmp_path / "q.parquet", ("question_id",))
    files = {"--rollouts": f"{results[1][0]}/rollouts.parquet", "--scores": f"{results[1][0]}/scores.parquet"}
    files["--questions"] = str(tmp_path / "q.parquet")
    show.main([*(word for item in files.items() for word in item), *options])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--best"], ["--worst"], ["--case", "right-without-evidence"], ["--sample", "0"]]
)
def test_show_chooses(made, capsys, tmp_path, options):
    text = asked(made, capsys, tmp_path, *options)
    assert "q1, sample 0: answered" in text
    assert "information gain +0.500 ██\n" in text


def test_show_says_if_no_trajectory_is_of_a_kind(made, capsys, tmp_path):
    with pytest.raises(SystemExit):
        asked(made, capsys, tmp_path, "--case", "wrong-but-found")
    assert "no trajectory of case 'wrong-but-found'; it has q1" in capsys.readouterr().err


def test_nothing_that_a_terminal_acts_on_is_printed(made, capsys, tmp_path):
    text = asked(made, capsys, tmp_path)
    assert "question: Which␛[31m <U+202E>city?" in text
    assert not set(text) & set("\x1b\u202e")
