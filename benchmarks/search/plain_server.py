"""The server to compare with: FastAPI, Lucene and FAISS, one query at a time, much as Search-R1 ships it.

python -m benchmarks.search.plain_server --index DIR [DIR] --port N      two are fused by reciprocal rank
"""

import argparse
from pathlib import Path

import faiss
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModel, AutoTokenizer

from retrieval.encoder.folder import encoder_folder
from retrieval.indexes.bm25 import java
from retrieval.indexes.manifest import read_manifest
from retrieval.indexes.passages import Passages
from retrieval.indexes.searcher import DEPTH, fuse


class Request(BaseModel):
    """Search-R1's request."""

    queries: list[str]
    topk: int = 3
    return_scores: bool = False


class PlainBm25:
    """One Lucene search per query."""

    def __init__(self, folder: Path, settings: dict, passages: Passages):
        self.searcher = java("io.anserini.search.SimpleSearcher")(str(folder / "lucene"))
        self.searcher.set_bm25(settings["k1"], settings["b"])

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """(id, score) of the best `k`."""
        return [(hit.docid, hit.score) for hit in self.searcher.search(query, k)]


class PlainDense:
    """One forward pass and one FAISS search per query."""

    def __init__(self, folder: Path, settings: dict, passages: Passages):
        self.passages = passages
        source = encoder_folder(settings["encoder"])
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.model = AutoModel.from_pretrained(source).eval()
        self.index = faiss.read_index(str(folder / "dense.faiss"))

    @torch.no_grad()
    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """(id, score) of the best `k`."""
        inputs = self.tokenizer([query], max_length=256, truncation=True, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state
        vector = torch.nn.functional.normalize(states.mean(1), dim=1).numpy()
        scores, rows = self.index.search(vector, k)
        return list(zip(map(self.passages.id, rows[0].tolist()), scores[0].tolist(), strict=True))


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, nargs="+", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    passages = Passages(args.index[0])
    searchers = []
    for folder in args.index:
        manifest = read_manifest(folder)
        kind = {"bm25": PlainBm25, "dense": PlainDense}[manifest["kind"]]
        searchers.append(kind(folder, manifest["settings"], passages))
    app = FastAPI()

    def ranking(query: str, k: int) -> list[tuple[str, float]]:
        if len(searchers) == 1:
            return searchers[0].search(query, k)
        return fuse([[name for name, _ in searcher.search(query, DEPTH)] for searcher in searchers])[:k]

    @app.post("/retrieve")
    def retrieve(request: Request) -> dict:
        result = []
        for query in request.queries:
            hits = []
            for passage_id, score in ranking(query, request.topk):
                name, title, text = passages.row(passages.find(passage_id))
                hits.append({"document": {"id": name, "contents": f'"{title}"\n{text}'}, "score": score})
            result.append(hits)
        return {"result": result}

    uvicorn.run(app, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
