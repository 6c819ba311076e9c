"""Cards and archives of a finished run."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import textwrap

import pytest
import results_tree
from root import ROOT

from igpo import questions
from igpo.experiment import schema
from igpo.publishing import card, export
from pipeline import storage

ROWS = [
    {
        "question_id": f"q{number}",
        "benchmark": "vitalqa",
        "question": f"Which {number}?",
        "answers": ["a", "b"],
    }
    | {"supporting_ids": ["x"], "hops": 1, "split": split, "type": "capital"}
    for number, split in enumerate(("train", "dev", "test"))
]


@pytest.fixture
def root(tmp_path):
    """A finished run's folder."""
    results_tree.write_results(tmp_path / "results")
    (tmp_path / "results/tables").mkdir()
    (tmp_path / "results/tables/main.md").write_text("table")
    for row in ROWS:
        path = tmp_path / f"results/questions/{row['split']}.parquet"
        storage.write([row], schema.QUESTIONS, path, schema.QUESTIONS_KEY)
    return tmp_path


@pytest.fixture
def text(root):
    """The card of igpo's last policy."""
    manifest = {
        "weights_sha256": "w",
        "iteration": 4,
        "source": "warm-up of x",
        "parents": ["p"],
        "metrics": {},
    }
    storage.write_json(manifest, root / "results/runs/igpo/s1/002/policy.json")
    metrics = storage.read_json(root / "results/evaluations/igpo_s1/metrics.json")
    metrics["provenance"]["decoding"] = "temperature 0.7"
    storage.write_json(metrics, root / "results/evaluations/igpo_s1/metrics.json")
    files = [
        "--policy",
        root / "results/runs/igpo/s1/002",
        "--metrics",
        root / "results/evaluations/igpo_s1/metrics.json",
    ]
    options = ["--params", ROOT / "params.yaml", "--arm", "igpo", "--out", root / "README.md"]
    card.main(list(map(str, [*files, *options])))
    return (root / "README.md").read_text()


def test_a_card_says_how_a_policy_was_trained_and_its_numbers(text):
    assert "4 updates with `igpo`" in text
    assert re.search(r"\| vitalqa +\| +4 \| 50.0 \[40.0, 60.0\] \|", text)
    assert re.search(r"\| score.format_penalty +\| +-0.5 \|", text)
    assert "license: apache-2.0" in text and "`w`" in text
    assert "Decoding: temperature 0.7" in text


@pytest.mark.slow
def test_a_policy_loads_as_its_card_says(text, base_model):
    """Each block of code, in a process of its own in a policy's folder."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    small = "max_model_len=64, enforce_eager=True, kv_cache_memory_bytes=2**28"
    for block in blocks:
        code = block.replace('LLM(".")', f'LLM(".", {small})')
        # vLLM imports the main module again in the processes that it starts
        whole = f'if __name__ == "__main__":\n{textwrap.indent(code, "    ")}'
        process = subprocess.run(
            [sys.executable, "-c", whole], cwd=base_model, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr


def archived(root, capsys, name):
    export.main(["--params", str(ROOT / "params.yaml"), "--root", str(root), "--out", str(root / name)])
    return capsys.readouterr().out.split()[0], (root / name).read_bytes()


def test_an_archive_holds_what_a_rerun_needs_and_sums_of_it(root, capsys):
    digest, data = archived(root, capsys, "one.tar.gz")
    assert digest == hashlib.sha256(data).hexdigest()
    assert archived(root, capsys, "two.tar.gz") == (digest, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert {"params.yaml", "requirements/cpu.txt", "results/tables/main.md"} <= files.keys()
    assert "results/runs/igpo/s1/001/policy.json" in files


def test_a_run_without_tables_is_one_line(root, capsys):
    (root / "results/tables/main.md").unlink()
    with pytest.raises(SystemExit) as end:
        export.main(["--params", str(ROOT / "params.yaml"), "--root", str(root), "--out", str(root / "x")])
    assert end.value.code == 2
    assert "main.md: no such file; finish the run first" in capsys.readouterr().err


def test_exported_questions_are_read_back_as_they_were(root, tmp_path):
    export.main(
        [
            "--params",
            str(ROOT / "params.yaml"),
            "--root",
            str(root),
            "--questions",
            "--out",
            str(root / "out"),
        ]
    )
    first = json.loads((root / "out/train.jsonl").read_text())
    assert (first["id"], first["golden_answers"], first["data_source"]) == ("q0", ["a", "b"], "vitalqa")
    storage.write(
        [{"id": "x", "title": "t", "text": "a b"}], storage.CORPUS, tmp_path / "corpus.parquet", ("id",)
    )
    source = ["--source", str(root / "out/{split}.jsonl"), "--corpus", str(tmp_path / "corpus.parquet")]
    questions.main([*source, "--params", str(ROOT / "params.yaml"), "--out", str(tmp_path / "read")])
    for row in ROWS:
        (question,) = storage.read(tmp_path / f"read/{row['split']}.parquet", schema.QUESTIONS).to_pylist()
        for name in ("question", "answers", "benchmark"):
            assert question[name] == row[name]
