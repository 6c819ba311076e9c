"""The server as its clients use it: answer forms, limits, refusals, the command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests
from small_index import ROWS, refusal
from small_server import QUERIES, post, running

from retrieval import serve


def test_search_r1_client(url):
    """search_r1/llm_agent/generation.py: `_batch_search` and `_passages2string`."""
    answer = requests.post(f"{url}/retrieve", json={"queries": QUERIES, "topk": 3, "return_scores": True})
    result = answer.json()["result"]
    passages = ""
    for number, item in enumerate(result[0]):
        content = item["document"]["contents"]
        title, text = content.split("\n")[0], "\n".join(content.split("\n")[1:])
        passages += f"Doc {number + 1}(Title: {title}) {text}\n"
    assert passages.startswith(
        'Doc 1(Title: "Herman Melville") American writer (1819–1891). Herman Melville wrote'
    )
    assert len(result) == 4
    assert requests.post(
        f"{url}/retrieve", json={"queries": [], "topk": 3, "return_scores": True}
    ).json() == {"result": []}


def test_verl_client(url):
    """verl/tools/utils/search_r1_like_utils.py: `call_search_api` and `_passages2string`."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    payload = {"queries": QUERIES[:2], "topk": 2, "return_scores": True}
    answer = requests.post(f"{url}/retrieve", headers=headers, json=payload, timeout=30)
    assert answer.status_code not in (500, 502, 503, 504)
    answer.raise_for_status()
    texts = []
    for retrieval in answer.json().get("result", []):
        text = ""
        for idx, item in enumerate(retrieval):
            content = item["document"]["contents"]
            text += f"Doc {idx + 1} (Title: {content.split(chr(10))[0]})\n{content.split(chr(10), 1)[1]}\n\n"
        texts.append(text.strip())
    assert '(Title: "Ouagadougou")\nCapital of Burkina Faso.' in "\n---\n".join(texts)


def test_return_scores_both_ways_and_documents(url, searcher):
    with_scores = post(url, "/retrieve", {"queries": QUERIES[:1], "topk": 2, "return_scores": True}).json()
    assert [sorted(item) for item in with_scores["result"][0]] == [["document", "score"]] * 2
    expected = searcher.search(QUERIES[:1], 2)[0]
    assert [item["score"] for item in with_scores["result"][0]] == [hit.score for hit in expected]
    for body in ({"queries": QUERIES[:1], "topk": 2}, {"query_list": QUERIES[:1], "k": 2}):
        bare = post(url, "/retrieve", body).json()["result"][0]
        assert bare == [item["document"] for item in with_scores["result"][0]]
    assert bare[0] == {
        "id": "melville",
        "title": ROWS[0][1],
        "text": ROWS[0][2],
        "contents": f'"{ROWS[0][1]}"\n{ROWS[0][2]}',
    }
    for count in (1, 2, 3):  # Search-R1's own server fails here unless there are two queries
        assert len(post(url, "/retrieve", {"queries": QUERIES[:count]}).json()["result"]) == count


@pytest.mark.parametrize("topk", [None, 0, "missing"])
def test_topk_null_zero_or_missing_means_the_servers(url, topk):
    body = {"queries": ["mountain atlas"], "return_scores": True}
    hits = post(url, "/retrieve", body if topk == "missing" else {**body, "topk": topk}).json()["result"][0]
    assert [item["document"]["id"] for item in hits] == ["twin-a", "twin-b", "twin-c"]


def test_a_null_beside_its_synonym_counts_as_not_given(url):
    answer = post(url, "/retrieve", {"queries": ["mountain atlas"], "topk": None, "k": 1, "query_list": None})
    assert len(answer.json()["result"][0]) == 1


def test_search_agent_review_client(url):
    body = {"query_list": ["mountain atlas", " ", "noble gas"], "k": [1, 5, 2]}
    hits = post(url, "/search", body).json()["result"]
    assert [[item["document"]["id"] for item in items] for items in hits] == [["twin-a"], ["argon", "neon"]]
    assert {"id", "title", "contents"} <= set(hits[0][0]["document"]) and "score" in hits[0][0]
    assert len(post(url, "/search", {"queries": ["mountain atlas"], "topk": 2}).json()["result"][0]) == 2
    assert len(post(url, "/search", {"queries": ["mountain atlas"]}).json()["result"][0]) == 3


@pytest.mark.parametrize(
    ("body", "sizes"),
    [
        ({"query_list": ["noble gas", "mountain"], "k": [1]}, [1, 1]),
        ({"query_list": ["mountain", "atlas"], "k": []}, [3, 3]),
        ({"query_list": ["noble gas", "", 5, "mountain"], "k": [1, 2]}, [1, 2]),
        ({"query_list": None, "queries": ["mountain"], "k": None, "topk": 1}, [1]),
    ],
)
def test_search_agent_review_reads_a_request_as_its_own_server(url, body, sizes):
    assert list(map(len, post(url, "/search", body).json()["result"])) == sizes


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/search", {"query_list": []}, 400, "query_list is empty"),
        ("/search", {"query_list": [" "]}, 400, "query_list is empty"),
        ("/search", {"query_list": ["a"], "k": [1, 2]}, 400, "k length mismatch with query_list"),
        ("/search", {"query_list": ["a"], "k": 0}, 400, "k must be positive"),
        ("/retrieve", {}, 422, "queries"),
        ("/retrieve", {"queries": "one"}, 422, "queries"),
        ("/retrieve", {"queries": [1]}, 422, "queries"),
        ("/retrieve", {"queries": ["a"], "topk": -1}, 422, "topk"),
        ("/retrieve", {"queries": ["a"], "topk": "x"}, 422, "topk"),
        ("/retrieve", {"queries": ["a"], "topk": 11}, 422, "at most 10"),
        ("/retrieve", {"queries": ["a"], "topk": True}, 422, "topk is true or false"),
        ("/search", {"queries": ["a", "b"], "k": [1, True]}, 422, "k is true or false"),
        ("/retrieve", {"queries": ["a"], "topk": 1, "k": 2}, 422, "topk and k differ"),
        ("/search", {"queries": ["a"], "query_list": ["b"]}, 422, "queries and query_list differ"),
        ("/retrieve", {"queries": ["a"] * 41}, 413, "at most 40"),
        ("/retrieve", {"queries": ["a" * 201]}, 413, "more than 200"),
        ("/retrieve", {"queries": ["a"], "pad": "x" * 30_000}, 413, "more than 20000"),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_bad_requests_are_4xx(url, path, body, status, message):
    answer = post(url, path, body)
    assert answer.status_code == status
    assert message in json.dumps(answer.json()["detail"])


def test_an_answer_to_a_failure_names_the_index_too(searcher, monkeypatch):
    def failing(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(searcher, "search", failing)
    with running(serve.create_app(searcher, 3)) as url:
        answer = post(url, "/retrieve", {"queries": ["a"]})
    assert (answer.status_code, answer.headers["X-Index-Identity"]) == (500, searcher.identity)


def test_a_body_that_is_not_json_is_422_in_fastapis_form(url):
    for body in (b"{", b"\xff\xfe", b"", b"[1]"):
        answer = requests.post(f"{url}/retrieve", data=body, timeout=20)
        assert answer.status_code == 422
        assert {"loc", "msg", "type"} <= set(answer.json()["detail"][0])


def test_health_document_metrics_and_identity(url, searcher):
    health = requests.get(f"{url}/health", timeout=20)
    assert health.json() == {
        "status": "ok",
        "identity": searcher.identity,
        "corpus_sha256": searcher.corpus_sha256,
        "rows": len(ROWS),
    }
    assert requests.get(f"{url}/document/strauß%2F1", timeout=20).json()["title"] == "Johann Strauß"
    response = requests.get(f"{url}/document/none", timeout=20)
    assert response.status_code == 404
    assert response.headers["X-Index-Identity"] == searcher.identity == health.headers["X-Index-Identity"]
    metrics = requests.get(f"{url}/metrics", timeout=20).text
    assert 'retrieval_requests_total{route="/document/{name:path}",status="404"}' in metrics
    assert "retrieval_waiting_queries 0.0" in metrics


def test_a_taken_port_is_one_line(built, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = refusal(capsys, serve.main, "--index", built[1], "--port", port)
    assert f"127.0.0.1:{port}" in message


def test_the_command_serves_and_stops_on_a_signal(built):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    indexes = [word for index in built[1:3] for word in ("--index", str(index))]
    command = [sys.executable, "-m", "retrieval", "serve", *indexes, "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, env=environment)
    try:
        hits = []
        for _ in range(300):
            try:
                hits = post(f"http://127.0.0.1:{port}", "/retrieve", {"queries": QUERIES}).json()["result"]
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        assert len(hits) == 4
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "retrieval.serve: stopped" in printed
    assert "leaked" not in errors
