"""Verdicts of a language model: `rollouts, questions -> judgements.parquet`, off without `judge.model`.

The paper's MBE counts an answer as right when a judge model says that it means a gold answer; an exact match
needs no judge. Ours is a model folder, run here by the engine of the rollouts, or with `judge.url` any server
with OpenAI's chat completions, on this machine unless `judge.remote` allows another; greedy by default. An
answer on which the judge gives no verdict is null, never wrong.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from igpo.acting.engine import Request, open_engine
from igpo.credit import answer_metrics
from igpo.experiment import schema
from igpo.experiment.policy import context, load_tokenizer, weights_sha256
from igpo.experiment.schema import JUDGEMENTS, JUDGEMENTS_KEY, trajectories
from igpo.protocols.protocol import THINK, Protocol, Turn
from igpo.protocols.renderer import Renderer
from pipeline import sections, stage, storage
from pipeline.errors import UserError
from retrieval.indexes.hits import clean
from retrieval.server.exchange import Exchange, Refused, is_http, is_loopback

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
# One message, in which an answer's control tokens are plain text; the reply ends with the JSON object.
ASKING = Protocol(instructions="{question}", parse=lambda text: Turn(), scaffold="", stops=("}",))


class Server:
    """A model behind an OpenAI-compatible URL such as http://127.0.0.1:8000/v1."""

    def __init__(self, url: str, params: sections.Judge):
        """Raises UserError for a URL that is none, or of another machine without `judge.remote`."""
        if not is_http(url):
            raise UserError(f"judge.url: {url!r} is no URL; expected such as http://127.0.0.1:8000/v1")
        if not is_loopback(url) and not params.remote:
            raise UserError(
                f"judge.url: {url} is another machine; set judge.remote: true to send it the answers"
            )
        self.url = url.rstrip("/") + "/chat/completions"
        self.params = params
        self.exchange = Exchange(url, "the judge", threads=params.workers)
        self.replied = False

    def replies(self, contents: Sequence[str], seed: int) -> list[str]:
        """The model's reply to each message, `judge.workers` at a time; the refusal in place of a reply.

        Raises UserError if all are refused, and as `_complete` does.
        """
        with ThreadPoolExecutor(self.params.workers) as pool:
            replies = list(pool.map(lambda content: self._unless_refused(content, seed), contents))
        self.replied |= any(isinstance(reply, str) for reply in replies)
        for reply in replies:
            if isinstance(reply, Refused) and not self.replied:
                raise reply
        return list(map(str, replies))

    def _unless_refused(self, content: str, seed: int) -> str | Refused:
        try:
            return self._complete(content, seed)
        except Refused as error:
            return error

    def _complete(self, content: str, seed: int) -> str:
        """The model's reply. Raises UserError if the server fails, refuses or answers something else."""
        body = {
            "model": self.params.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": self.params.temperature,
            "seed": seed,
            "max_tokens": REPLY_TOKENS,
        }
        answer = self.exchange.ask(self.url, body, redirects=False)
        try:
            return clean(str(answer.json()["choices"][0]["message"]["content"] or ""))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{self.url}: not a chat completion: {error!r}") from None


class Local:
    """A model folder in the engine that rollouts use."""

    def __init__(self, folder: Path, params: sections.Judge, contents: Sequence[str]):
        """Start the engine for `contents`. Raises UserError if it can't load the folder."""
        self.params = params
        self.renderer = Renderer(load_tokenizer(folder), ASKING)
        prompt = self.renderer.decode(self.renderer.prompt(""), stopped=False)
        # a thought that the chat template opens is the reply's: what is drafted in it is no verdict
        self.opening = THINK if prompt.rstrip().endswith(THINK) else ""
        self.most = context(folder) - REPLY_TOKENS
        fitting = [size for content in contents if (size := len(self.renderer.prompt(content))) <= self.most]
        longest = max(fitting, default=self.most)
        room = longest + REPLY_TOKENS
        self.engine = open_engine(
            folder, params.engine, room, self.renderer.tokenizer, bool(ASKING.stops), params.tensor_parallel
        )

    def replies(self, contents: Sequence[str], seed: int) -> list[str]:
        """The model's reply to each message; nothing to one beyond its context."""
        prompts = list(map(self.renderer.prompt, contents))
        requests = [Request(prompt, seed) for prompt in prompts if len(prompt) <= self.most]
        generations = iter(
            self.engine.generate(requests, REPLY_TOKENS, self.params.temperature, ASKING.stops)
        )
        replies = []
        for prompt in prompts:
            generation = next(generations) if len(prompt) <= self.most else None
            text = self.renderer.decode(generation.ids, generation.stopped) if generation else ""
            replies.append(self.opening + text if generation else "")
        return replies


def verdict(reply: str) -> float | None:
    """1 or 0 from the last outermost JSON object with a verdict after any thought; None without one."""
    text = reply.rpartition("</think>")[2].partition("<think>")[0]
    decoder, start, result = json.JSONDecoder(), text.find("{"), None
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = {}, start + 1
        word = value.get("verdict")
        result = VERDICTS.get(word.strip().lower(), result) if isinstance(word, str) else result
        start = text.find("{", end)
    return result


def verdicts(model: Server | Local, contents: Sequence[str], tries: int) -> list[tuple[float | None, str]]:
    """(verdict, reply) for each message; other seeds, `tries` in all, if a reply holds no verdict."""
    results: list[tuple[float | None, str]] = [(None, "")] * len(contents)
    for seed in range(tries):
        silent = [number for number, (value, _) in enumerate(results) if value is None]
        if not silent:
            break
        replies = model.replies([contents[number] for number in silent], seed)
        for number, reply in zip(silent, replies, strict=True):
            results[number] = (verdict(reply), reply)
    return results


def judged(
    turn_lists: list[schema.Rows], questions: dict[str, Any], folder: Path, params: sections.Judge
) -> schema.Rows:
    """A judgement row per trajectory: no answer is wrong, an exact match right, else the judge says."""
    rows, contents = [], []
    for turns in turn_lists:
        answer, question = turns[-1]["answer"], questions[turns[0]["question_id"]]
        exact = answer_metrics.exact_match(answer, question["answers"])
        needs_judge = answer is not None and not exact
        if needs_judge:
            golds = json.dumps(question["answers"], ensure_ascii=False)
            contents.append(PROMPT.format(question=question["question"], golds=golds, answer=answer))
        key = {name: turns[0][name] for name in JUDGEMENTS_KEY}
        rows.append({**key, "mbe": None if needs_judge else exact, "reply": "" if needs_judge else None})
    if contents:
        model = Server(params.url, params) if params.url else Local(folder, params, contents)
        # here greedy replies would be the same again
        tries = params.tries if params.url or params.temperature else 1
        results = iter(verdicts(model, contents, tries))
        for row in rows:
            if row["reply"] is not None:
                row["mbe"], row["reply"] = next(results)
    return rows


def described(folder: Path, params: sections.Judge) -> str:
    """The judge as metrics name it."""
    weights = [] if params.url else [f"weights {weights_sha256(folder)[:12]}"]
    decoding = f"temperature {params.temperature}" if params.temperature else "greedy"
    return ", ".join([str(params.model), *weights, decoding])


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--policy", type=Path, metavar="DIR", help="the judge's model folder; default: judge.model"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: sections.Judge) -> str:
    """Judge every trajectory and write the table."""
    if not params.model:
        raise UserError("judge.model is not set: there is no judge to ask")
    turn_lists = trajectories(storage.read(args.rollouts, schema.ROLLOUTS).to_pylist())
    questions = {
        row["question_id"]: row for row in storage.read(args.questions, schema.QUESTIONS).to_pylist()
    }
    if unknown := sorted({rows[0]["question_id"] for rows in turn_lists} - set(questions)):
        raise UserError(f"{args.questions}: no question {unknown[0]!r}, which the rollouts hold")
    folder = args.policy or Path(params.model)
    meta = {"model": described(folder, params), "rollouts": storage.sha256(args.rollouts)}
    judgements = judged(turn_lists, questions, folder, params)
    storage.write(judgements, JUDGEMENTS, args.out, JUDGEMENTS_KEY, meta)
    asked_count = sum(row["reply"] is not None for row in judgements)
    silent = sum(row["mbe"] is None for row in judgements)
    return f"{len(judgements)} answers, {asked_count} judged by {params.model}, {silent} without a verdict"


main = stage.command(sections.Judge, arguments, run, __doc__)

if __name__ == "__main__":
    main()
