"""The questions stage, and a corpus of people that it derives questions from."""

import json

from igpo import questions
from pipeline import storage

PARAMS = {
    "source": "vitalqa",
    "seed": 1,
    "dev_share": 0.1,
    "test_share": 0.15,
    "passage_chars": 320,
    "headline_types": ["birth_year"],
}


def run(*arguments):
    questions.main(["--config", json.dumps(PARAMS), *map(str, arguments)])


def stage_corpus(folder):
    people = [
        {
            "id": f"{i:02}",
            "title": f"Jane {chr(65 + i)}vers",
            "text": f"English writer ({1700 + i}–{1780 + i}). She.",
        }
        for i in range(26)
    ]
    meta = {"corpus_sha256": "of these people"}
    storage.write(people, storage.CORPUS, folder / "corpus.parquet", ("id",), meta)
    return folder / "corpus.parquet"
