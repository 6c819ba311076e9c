"""The judge against a small local server that answers as OpenAI-compatible ones do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from igpo import evaluate, judge, schema
from retrieval import client, tables
from retrieval.stage import UserError

REPLIES = {  # by what stands in the answer: a reply for each seed
    "Lutetia": ['Sure: {"reason": "its old name", "verdict": "correct"}'] * 2,
    "London": ['{"reason": "another city", "verdict": "incorrect"}'] * 2,
    "Paname": ["I think so!", '{"reason": "a nickname", "verdict": "correct"}'],
    "Mumble": ["no idea", '{"verdict": "maybe"}'],
}


class Server(BaseHTTPRequestHandler):
    """POST /v1/chat/completions; `bodies` holds what was asked, `failures` statuses to answer with first."""

    bodies: list[dict]
    failures: list[int]

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.failures.pop(0) if self.failures else 200
        if status == 200 and self.path != "/v1/chat/completions":
            status = 404
        self.bodies.append(body)
        prompt = body["messages"][0]["content"].partition("Answer to grade: ")[2]
        reply = next((found for name, found in REPLIES.items() if name in prompt), [""])[body["seed"] :]
        answer = {"choices": [{"message": {"role": "assistant", "content": (reply or [""])[0]}}]}
        sent = json.dumps(answer).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://example.org/")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client, "DELAYS_S", (0.01, 0.01))
    handler = type("Handler", (Server,), {"bodies": [], "failures": []})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}/v1", handler=handler)
    httpd.shutdown()
    httpd.server_close()


def settings(url, **changed):
    values = {"url": url, "model": "m", "temperature": 0.0, "tries": 2, "workers": 2, "remote": False}
    return SimpleNamespace(**values | changed)


@pytest.mark.parametrize(
    ("answer", "expected", "asked"),
    [("Lutetia", 1.0, 1), ("London", 0.0, 1), ("Paname", 1.0, 2), ("Mumble", None, 2)],
)
def test_verdicts(server, answer, expected, asked):
    found, _ = judge.Judge(settings(server.url)).judge("Capital of France?", ["Paris"], answer)
    assert found == expected
    assert [body["seed"] for body in server.handler.bodies] == list(range(asked))
    body = server.handler.bodies[0]
    assert (body["model"], body["temperature"]) == ("m", 0.0)
    assert '["Paris"]' in body["messages"][0]["content"]


def test_a_busy_server_is_asked_again(server):
    server.handler.failures[:] = [503, 500]
    assert judge.Judge(settings(server.url)).judge("?", ["Paris"], "London")[0] == 0.0


@pytest.mark.parametrize(("status", "said"), [(401, "HTTP 401"), (302, "HTTP 302")])
def test_a_refusal_or_a_redirect_ends_in_one_line(server, status, said):
    server.handler.failures[:] = [status]
    with pytest.raises(UserError, match=said):
        judge.Judge(settings(server.url)).judge("?", ["Paris"], "London")


def test_another_machine_is_refused_unless_allowed():
    with pytest.raises(UserError, match=r"api\.example\.org/v1 is another machine; set judge\.remote"):
        judge.Judge(settings("https://api.example.org/v1"))
    assert judge.Judge(settings("https://api.example.org/v1", remote=True)).url.endswith("/chat/completions")


def test_nobody_there(monkeypatch):
    monkeypatch.setattr(client, "DELAYS_S", ())
    with pytest.raises(UserError, match="the judge does not answer"):
        judge.Judge(settings("http://127.0.0.1:9/v1")).judge("?", ["Paris"], "London")


def write_rollouts(folder, answers):
    """A question of one turn per answer; None is a malformed trajectory."""
    rows, questions = [], []
    lists = ("policy_ids", "policy_logprobs", "observation_ids", "queries", "hit_ids")
    for number, answer in enumerate(answers):
        key = {"question_id": f"q{number}", "sample": 0}
        blank = dict.fromkeys(schema.ROLLOUTS.names) | {name: [] for name in lists}
        rows += [blank | key | {"turn": turn} for turn in (0, 1)]
        rows[-1] |= {"answer": answer, "stop": "format_error" if answer is None else "answered"}
        question = {
            "question_id": f"q{number}",
            "benchmark": "b",
            "question": "Capital?",
            "answers": ["Paris"],
        }
        questions.append(question | {"supporting_ids": [], "hops": 1, "split": "test", "type": ""})
    tables.write(rows, schema.ROLLOUTS, folder / "rollouts.parquet", schema.TURN_KEY)
    tables.write(questions, schema.QUESTIONS, folder / "questions.parquet", schema.QUESTIONS_KEY)
    return ["--rollouts", str(folder / "rollouts.parquet"), "--questions", str(folder / "questions.parquet")]


def test_judgements_become_a_metric(server, tmp_path):
    files = write_rollouts(tmp_path, ["paris!", "Lutetia", "London", "Mumble", None])
    out = tmp_path / "judgements.parquet"
    judge.main([*files, "--config", json.dumps(vars(settings(server.url))), "--out", str(out)])
    assert tables.read(out, schema.JUDGEMENTS)["mbe"].to_pylist() == [1.0, 1.0, 0.0, None, 0.0]
    assert len(server.handler.bodies) == 1 + 1 + 2  # neither the exact match nor the missing answer
    config = {"bootstrap": 50, "seed": 0, "format_penalty": -2.0, "rollout": {}}
    metrics = tmp_path / "evaluation" / "metrics.json"
    for judged, expected in (([], None), (["--judgements", str(out)], 0.5)):
        evaluate.main([*files, *judged, "--config", json.dumps(config), "--out", str(metrics)])
        found = tables.read_json(metrics)["overall"]
        assert found["mbe"] is expected or found["mbe"]["mean"] == expected
    assert found["f1"]["mean"] == 0.2
    assert found["n"] == 5


def test_judgements_of_other_rollouts_are_refused(tmp_path):
    files = write_rollouts(tmp_path, ["paris!"])
    tables.write([], schema.JUDGEMENTS, tmp_path / "none.parquet", schema.JUDGEMENTS_KEY)
    config = {"bootstrap": 50, "seed": 0, "format_penalty": -2.0, "rollout": {}}
    options = ["--judgements", str(tmp_path / "none.parquet"), "--out", str(tmp_path / "metrics.json")]
    with pytest.raises(SystemExit) as end:
        evaluate.main([*files, *options, "--config", json.dumps(config)])
    assert end.value.code == 2
    assert not (tmp_path / "metrics.json").exists()
