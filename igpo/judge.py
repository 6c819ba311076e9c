"""Verdicts of a language model: `rollouts, questions -> judgements.parquet`, off without `judge.url`.

The paper's MBE counts an answer as right when a judge model says that it means a gold answer; an exact match
needs no judge. Ours asks any server with OpenAI's chat completions, greedily, on this machine unless
`judge.remote` allows another. An answer on which the judge gives no verdict is null, never wrong.
"""

import argparse
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from igpo import reward, schema
from igpo.schema import JUDGEMENTS, JUDGEMENTS_KEY, trajectories
from retrieval import stage, tables
from retrieval.client import is_loopback, with_retries
from retrieval.stage import UserError

TIMEOUT_S = 120
REPLY_TOKENS = 300
PROMPT = """\
You grade an answer to a factual question. It is correct if it names the same thing as one of the reference \
answers: another spelling, a fuller or shorter name, or other words around it do no harm. It is incorrect if \
it names something else, contradicts the references, or doesn't commit itself.

Question: {question}
Reference answers: {golds}
Answer to grade: {answer}

Reply with one JSON object and nothing else: {{"reason": "one sentence", "verdict": "correct"}} or \
{{"reason": "one sentence", "verdict": "incorrect"}}."""
VERDICTS = {"correct": 1.0, "incorrect": 0.0}


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it could lead off this machine."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow none."""


class Judge:
    """A model behind an OpenAI-compatible URL such as http://127.0.0.1:8000/v1."""

    def __init__(self, params: SimpleNamespace):
        """Raises UserError for a URL that is none, or of another machine without `judge.remote`."""
        parts = urlsplit(params.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"judge.url: {params.url!r} is no URL; expected such as http://127.0.0.1:8000/v1")
        if not is_loopback(params.url) and not params.remote:
            raise UserError(
                f"judge.url: {params.url} is another machine; set judge.remote: true to send it the answers"
            )
        self.url = params.url.rstrip("/") + "/chat/completions"
        self.params = params
        # A proxy from the environment must not see what stays on this machine.
        handlers = [urllib.request.ProxyHandler({})] if is_loopback(params.url) else []
        self.opener = urllib.request.build_opener(NoRedirects, *handlers)

    def judge(self, question: str, golds: list[str], answer: str) -> tuple[float | None, str]:
        """(verdict, reply); other seeds are tried where a reply holds no verdict, `judge.tries` in all."""
        content = PROMPT.format(question=question, golds=json.dumps(golds, ensure_ascii=False), answer=answer)
        reply = ""
        for seed in range(self.params.tries):
            reply = self._complete(content, seed)
            if (found := verdict(reply)) is not None:
                return found, reply
        return None, reply

    def _complete(self, content: str, seed: int) -> str:
        """The model's reply. Raises UserError where the server fails, refuses or answers something else."""
        body = {"model": self.params.model, "messages": [{"role": "user", "content": content}]}
        body |= {"temperature": self.params.temperature, "seed": seed, "max_tokens": REPLY_TOKENS}
        try:
            return with_retries(lambda: self._send(body), self.url, "the judge")
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.url}: not a chat completion: {error!r}") from None

    def _send(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with self.opener.open(request, timeout=TIMEOUT_S) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])


def verdict(reply: str) -> float | None:
    """1 or 0 from the JSON object in a reply; None where it holds none with a verdict."""
    found = re.search(r"\{.*\}", reply, re.DOTALL)
    try:
        value = json.loads(found.group())["verdict"] if found else None
    except (ValueError, LookupError):
        return None
    return VERDICTS.get(value) if isinstance(value, str) else None


def judged(rows: list[dict[str, Any]], question: dict[str, Any], judge: Judge) -> dict[str, Any]:
    """The judgement row of one trajectory: no answer is wrong, an exact match right, else the judge says."""
    answer, golds = rows[-1]["answer"], question["answers"]
    exact = reward.exact_match(answer, golds)
    known = answer is None or exact
    value, reply = (exact, None) if known else judge.judge(question["question"], golds, answer)
    return {**{name: rows[0][name] for name in JUDGEMENTS_KEY}, "mbe": value, "reply": reply}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Judge every trajectory and write the table."""
    if not params.url or not params.model:
        raise UserError("judge.url and judge.model are not set: there is no judge to ask")
    listed = trajectories(tables.read(args.rollouts, schema.ROLLOUTS).to_pylist())
    questions = {row["question_id"]: row for row in tables.read(args.questions, schema.QUESTIONS).to_pylist()}
    if unknown := sorted({rows[0]["question_id"] for rows in listed} - set(questions)):
        raise UserError(f"{args.questions}: no question {unknown[0]!r}, which the rollouts hold")
    judge = Judge(params)
    with ThreadPoolExecutor(params.workers) as pool:
        found = list(pool.map(lambda rows: judged(rows, questions[rows[0]["question_id"]], judge), listed))
    meta = {"model": params.model, "rollouts": tables.sha256(args.rollouts)}
    tables.write(found, JUDGEMENTS, args.out, JUDGEMENTS_KEY, meta)
    asked = sum(row["reply"] is not None for row in found)
    silent = sum(row["mbe"] is None for row in found)
    return f"{len(found)} answers, {asked} judged by {params.model}, {silent} without a verdict"


main = stage.command("judge", arguments, run, __doc__)

if __name__ == "__main__":
    main()
