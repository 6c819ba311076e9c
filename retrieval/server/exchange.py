"""JSON exchanged with a server, again if it is busy or silent."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from pipeline.errors import UserError, one_line

TIMEOUT_S = 60
TRIES = 3  # after the first
BACKOFF_S = 0.5  # before the third try; twice as long before each further one
MOST_WAIT_S = 30  # that a server's Retry-After may ask for
BUSY = (408, 429, 500, 502, 503, 504)
REFUSED = (400, 413, 422)  # what is wrong with one request, not with all of them


class Refused(UserError):
    """A server does not take this request: too long, too many, malformed. `reason`: its own words."""

    def __init__(self, url: str, reason: str):
        super().__init__(f"{url}: {reason}")
        self.reason = reason


def is_http(url: str) -> bool:
    """Whether a URL is one of a web server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # a bracket that isn't closed
        return False


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Exchange:
    """Connections to one server, kept open; `name` is what errors call it. For several threads."""

    def __init__(self, url: str, name: str, timeout_s: float = TIMEOUT_S, threads: int = 1):
        self.name, self.timeout_s = name, timeout_s
        self.session = requests.Session()
        # A proxy from the environment must not see what stays on this machine.
        self.session.trust_env = not is_loopback(url)
        retry = Retry(
            TRIES,
            backoff_factor=BACKOFF_S,
            status_forcelist=BUSY,
            allowed_methods=None,  # any: a search or a judgement may be asked for twice
            retry_after_max=MOST_WAIT_S,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=threads, max_retries=retry))

    def ask(self, url: str, body: Any = None, redirects: bool = True) -> requests.Response:
        """POST a JSON body, or GET without one; a 404 is an answer to a GET.

        Raises UserError if the server never answers or has an error, Refused if the request is to blame.
        """
        method = "GET" if body is None else "POST"
        try:
            answer = self.session.request(
                method, url, json=body, timeout=self.timeout_s, allow_redirects=redirects
            )
        except requests.RequestException as error:
            cause = getattr(error.args[0] if error.args else error, "reason", error)
            raise UserError(f"{url}: {self.name} does not answer: {one_line(cause, 300)}") from None
        if answer.status_code == 200 or (answer.status_code == 404 and body is None):
            return answer
        refusal = f"HTTP {answer.status_code}: {' '.join(answer.text[:500].split())}"
        raise Refused(url, refusal) if answer.status_code in REFUSED else UserError(f"{url}: {refusal}")
