"""Shared fixtures: parameters, the embedded tokenizer, tiny random models, the small index and its server."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from root import PARAMS_FILE
from small_index import indexes
from tiny import tiny

from pipeline.settings import read_params

# the same examples every time, however slow the machine is
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def no_tracking_address(monkeypatch) -> None:
    """MLflow leaves its last address in the environment, where processes of later tests would find it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that it is undone even if a test sets it
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture
def params() -> dict:
    """All of params.yaml."""
    return read_params([PARAMS_FILE])


@pytest.fixture(scope="session")
def base_model(tmp_path_factory) -> Path:
    """The embedded SmolLM2 as a model folder, made by the real stage."""
    from igpo import model

    folder = tmp_path_factory.mktemp("base")
    model.main(["--config", '{"source": "smollm2"}', "--out", str(folder)])
    return folder


@pytest.fixture(params=["llama", "qwen2"])
def tiny_model(request) -> torch.nn.Module:
    return tiny(request.param)


@pytest.fixture
def fp32_passes(monkeypatch) -> None:
    """Stages of this process make their passes in fp32 on any machine."""
    from igpo.tree import forward

    monkeypatch.setattr(forward, "compute_dtype", lambda: torch.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Corpus table, BM25 folder, dense folder of the small corpus."""
    return indexes(tmp_path_factory)


@pytest.fixture(scope="module")
def searcher(built):
    """Over its BM25 index."""
    from retrieval.indexes.searcher import open_searcher

    return open_searcher([built[1]])


@pytest.fixture(scope="module")
def url(searcher):
    """Address of a server of it with low limits."""
    from small_server import running

    from retrieval import serve
    from retrieval.server.wire import Limits

    limits = Limits(queries=40, chars=200, k=10, body_bytes=20_000, waiting=64, batch=8)
    with running(serve.create_app(searcher, 3, limits)) as address:
        yield address
