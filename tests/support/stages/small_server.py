"""A search server on loopback, and what is asked of it."""

import threading
import time
from contextlib import contextmanager

import requests
import uvicorn

from retrieval import serve

QUERIES = ["When did Herman Melville die?", "capital of Burkina Faso", "noble gas", "waltz composer"]


@contextmanager
def running(app):
    """The app on a free loopback port, in a thread; yields its URL."""
    with serve.listen("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def post(url: str, path: str, body: object) -> requests.Response:
    return requests.post(url + path, json=body, timeout=20)
