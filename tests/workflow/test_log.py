"""What a run prints: Snakemake's records in the experiment's words."""

import logging
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_igpo as plugin


@pytest.fixture
def handler(monkeypatch, tmp_path):
    """A handler of a run of eight iterations in an empty folder."""
    monkeypatch.setenv("IGPO_ITERATIONS", "8")
    monkeypatch.chdir(tmp_path)
    quiet = SimpleNamespace(dryrun=False, verbose=False, printshellcmds=False, debug_dag=False, stdout=False)
    return plugin.LogHandler(quiet, None)


def send(handler, event: LogEvent | None, second: int = 0, msg: str = "", **fields: object) -> None:
    """A record of Snakemake's, so many seconds after the first."""
    handler.emit(logging.makeLogRecord({"event": event, "msg": msg, "created": 1000.0 + second, **fields}))


def begin(handler, rule: str, log: str = "", benchmark: str | None = None, **wildcards: str) -> None:
    """The record of a job's start, with number 7."""
    job = {"jobid": 7, "rule_name": rule, "log": [log] if log else [], "benchmark": benchmark}
    send(handler, LogEvent.JOB_INFO, wildcards=wildcards, **job)


def test_a_stage_is_one_line_when_it_ends_and_a_measured_one_says_that_it_begins(handler, tmp_path, capsys):
    begin(handler, "rollout", "rollout.log", "rollout.tsv", arm="igpo", seed="1", k="003")
    text = "19:00:00 loading\nigpo.rollout: 32 trajectories, 20 answered (9.7 s)\nengine ends\n"
    (tmp_path / "rollout.log").write_text(text)
    send(handler, LogEvent.JOB_FINISHED, second=12, job_id=7)
    assert capsys.readouterr().err.splitlines() == [
        "igpo seed 1, iteration 3 of 8: rollout begins",
        "igpo seed 1, iteration 3 of 8: rollout, 32 trajectories, 20 answered (12 s)",
    ]
    begin(handler, "show_table", table="main")  # it keeps no log: no stage
    send(handler, LogEvent.JOB_FINISHED, job_id=7)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wildcards", "subject"),
    [
        ({}, ""),
        ({"kind": "bm25"}, "bm25"),
        ({"shard": "3"}, "shard 3"),
        ({"name": "closed_book"}, "closed book"),
        ({"name": "ig_search_s12"}, "ig search seed 12"),
        ({"arm": "igpo", "seed": "123", "k": "012"}, "igpo seed 123, iteration 12 of 8"),
        ({"folder": "runs/grpo/s2/004"}, "grpo seed 2, iteration 4 of 8"),
        ({"folder": "evaluations/igpo_s1"}, "igpo seed 1"),
        ({"file": "runs/grpo/s1/001/rollouts.parquet"}, "grpo seed 1, iteration 1 of 8, rollouts"),
    ],
)
def test_whom_a_job_is_about_follows_from_its_wildcards(handler, wildcards, subject):
    assert plugin.subject(wildcards) == subject


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("19:00:00 loading\nerror: no such file; give another\n", "error: no such file; give another"),
        ("Traceback\n  File\nValueError: odd\n\n", "ValueError: odd"),
        ("", "error: it left no word; was it killed?"),
    ],
)
def test_a_failed_stage_says_why_and_where_its_log_is(handler, tmp_path, capsys, log, reason):
    begin(handler, "warmup", "warmup.log")
    (tmp_path / "warmup.log").write_text(log)
    send(handler, LogEvent.ERROR, msg="RuleException:\nCalledProcessError in file x")
    send(handler, LogEvent.JOB_ERROR, second=3, jobid=7, shellcmd="exec python")
    send(handler, None, msg="Complete log(s): .snakemake/log/x.log")
    assert capsys.readouterr().err.splitlines() == [
        "warmup failed (3 s); its log: warmup.log",
        f"    {reason}",
        "Complete log(s): .snakemake/log/x.log",
    ]


def test_errors_and_answers_of_snakemake_are_printed_and_its_chatter_is_not(handler, capsys):
    for text in ("Building DAG of jobs...", "Select jobs to execute...", "Complete log(s): x.log"):
        send(handler, None, msg=text)
    send(handler, LogEvent.PROGRESS, msg="", done=1, total=3)
    assert capsys.readouterr().err == ""
    send(handler, LogEvent.ERROR, msg="MissingRuleException:\nNo rule to produce x")
    send(handler, None, msg="Nothing to be done (all requested files are present and up to date).")
    assert capsys.readouterr().err.count("\n") == 3


def test_a_dry_run_prints_what_snakemake_does(handler, capsys):
    handler.common_settings.dryrun = handler.common_settings.stdout = True
    handler.setFormatter(logging.Formatter("Snakemake: %(message)s"))
    send(handler, LogEvent.JOB_INFO, msg="rule rollout")
    assert capsys.readouterr().out == "Snakemake: rule rollout\n"
