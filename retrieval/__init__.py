"""Local search over a fixed corpus: BM25, dense and hybrid, in process or over HTTP."""

import pipeline as pipeline  # its import switches every network call off
