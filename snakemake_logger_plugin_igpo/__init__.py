"""Snakemake's log in the experiment's words: a line when a stage ends, and one when a measured one begins.

    igpo seed 1, iteration 3 of 8: rollout, 32 trajectories, 61 turns, 20 answered (12 s)

`logger: [igpo]` in profiles/default/profile.yaml chooses it. The words are those of a rule's name, of its
wildcards and of the last line of its log: a new rule needs none of its own. A rule without a log is no stage
and says nothing unless it fails. Dry runs and runs that ask for more (--printshellcmds, --verbose,
--debug-dag) print what Snakemake prints; .snakemake/log has that for every run.

What runs and what has failed it notes in .snakemake/igpo.json, for `igpo status`.

Snakemake finds plugins that are packages on sys.path; installing the repository in place puts it there.
"""

import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# What Snakemake says of every run that does something, and of a failed job a second time: for its own log.
CHATTER = re.compile(
    "Assuming unrestricted shared|Building DAG|Using shell|Select jobs to execute|Removing temporary output|"
    "(Conda environments|Singularity containers|Group jobs): |RuleException:\nCalledProcessError|"
    "WorkflowError:\nAt least one job did not complete"
)
NOTES = Path(".snakemake/igpo.json")
SUMMARY = re.compile(r"[\w.]+: (.+) \([\d.]+ s\)$")  # as pipeline/stage.py prints it


CHANGES = (LogEvent.JOB_INFO, LogEvent.JOB_FINISHED, LogEvent.JOB_ERROR)


def subject(wildcards: dict[str, str]) -> str:
    """Say whom a job is about, as in `igpo seed 1, iteration 3 of 8`; empty if all arms share it."""
    parts = []
    for name, value in wildcards.items():
        *folders, last = value.split("/")
        of_path = "k" if folders else name  # numbered folders are iterations
        parts += [part(of_path, word) for word in [*folders[1:], last]]  # the first says where files lie
    return ", ".join(parts).replace(", seed ", " seed ")


def part(name: str, word: str) -> str:
    """Word a wildcard's value, or one folder of it."""
    if word.isdigit():
        iteration = f"iteration {int(word)} of {os.environ.get('IGPO_ITERATIONS', '?')}"
        return iteration if name == "k" else f"{name} {int(word)}"
    word = re.sub(r"(^|_)s(\d+)(?=_|$)", r" seed \2", word)
    return re.sub(r"\.[a-z]+$", "", word).replace("_", " ").strip()


def log_lines(paths: list[str]) -> list[str]:
    """The lines of a job's logs that aren't empty."""
    texts = [Path(path).read_text(errors="replace") for path in paths if Path(path).is_file()]
    return [line for text in texts for line in text.splitlines() if line.strip()]


def summary(lines: list[str]) -> str:
    """What a stage did, as its log says last; empty if it doesn't."""
    matches = (SUMMARY.match(line) for line in reversed(lines))
    return next((match[1] for match in matches if match), "")


def why(lines: list[str]) -> str:
    """Why a stage failed: its log's last `error: …`, else its last line."""
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["error: it left no word; was it killed?"])[-1]


@dataclass
class Job:
    """A job that has begun: its words, its logs, when."""

    words: str
    logs: list[str]
    begun: float

    def took(self, now: float) -> str:
        """The time since."""
        return f"({now - self.begun:.0f} s)"


class LogHandler(LogHandlerBase):
    """Prints the records of a run; Snakemake calls it in a thread of its own."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False  # Snakemake's: --quiet holds here too
    has_formatter = False  # Snakemake's
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Nothing has begun."""
        self.jobs: dict[int, Job] = {}
        self.failures: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, if it is one for a reader."""
        try:
            settings = self.common_settings
            in_full = settings.dryrun or settings.verbose or settings.printshellcmds or settings.debug_dag
            text = self.format(record) if in_full else self.in_words(record)
            if not settings.dryrun and record.__dict__.get("event") in (*CHANGES, LogEvent.RUN_INFO):
                self.note()
            if text and text != "None":  # what a record without words becomes
                stream = sys.stdout if settings.stdout else sys.stderr
                stream.write(f"{text}\n")  # at once: stages may print beside
                stream.flush()
        except Exception:
            self.handleError(record)

    def note(self) -> None:
        """Write down what runs and what has failed."""
        jobs = [{"words": job.words, "logs": job.logs, "begun": job.begun} for job in self.jobs.values()]
        NOTES.parent.mkdir(exist_ok=True)
        temporary = NOTES.with_name(f"{NOTES.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"running": jobs, "failed": self.failures}))
        temporary.replace(NOTES)

    def in_words(self, record: logging.LogRecord) -> str:
        """Word a record; empty for what the log keeps to itself."""
        fields = record.__dict__
        match fields.get("event"):
            case LogEvent.JOB_INFO:
                return self.begin(fields)
            case LogEvent.JOB_FINISHED:
                return self.end(fields)
            case LogEvent.JOB_ERROR:
                return self.fail(fields)
            case LogEvent.RUN_INFO:
                return f"{fields['stats']['total']} jobs to run"
            case None | LogEvent.ERROR | LogEvent.GROUP_ERROR:
                text = record.getMessage()
                is_chatter = CHATTER.match(text) or (text.startswith("Complete log") and not self.failures)
                return "" if is_chatter else self.format(record)
        return ""

    def begin(self, fields: dict) -> str:
        """Keep a job in mind; say so if its time is measured, as that of long stages is."""
        who, what = subject(fields["wildcards"]), fields["rule_name"].replace("_", " ")
        job = Job(f"{who}: {what}" if who else what, fields["log"], fields["created"])
        self.jobs[fields["jobid"]] = job
        return f"{job.words} begins" if fields["benchmark"] else ""

    def end(self, fields: dict) -> str:
        """Say what a stage did."""
        job = self.jobs.pop(fields["job_id"], None)
        if job is None or not job.logs:
            return ""
        did = summary(log_lines(job.logs))
        return f"{job.words}{', ' if did else ''}{did} {job.took(fields['created'])}"

    def fail(self, fields: dict) -> str:
        """Say which stage failed, why, and where more is."""
        job = self.jobs.pop(fields["jobid"], None) or Job(
            fields["rule_name"], fields["log"], fields["created"]
        )
        reason = why(log_lines(job.logs)) if job.logs else f"error: {fields['shellcmd']}"
        self.failures.append({"words": job.words, "logs": job.logs, "reason": reason})
        more = f"; its log: {', '.join(job.logs)}" if job.logs else ""
        return f"{job.words} failed {job.took(fields['created'])}{more}\n    {reason}"
