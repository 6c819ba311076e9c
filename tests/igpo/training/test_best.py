"""The best policy so far: chosen by dev F1 alone, linked, and known by its manifest."""

from pathlib import Path

from results_tree import block
from small_index import refusal

from igpo.training import best
from pipeline import storage

FILES = ("config.json", "model.safetensors")


def policy(root: Path, k: int, f1: float) -> tuple[Path, Path]:
    """Folder of the policy after update k, and its validation's metrics.json."""
    folder = root / f"{k:03d}"
    folder.mkdir(parents=True)
    for name in (*FILES, "rollouts.parquet", "training_state.st"):
        (folder / name).write_text(f"{name} of {k}")
    manifest = {"iteration": k, "weights_sha256": f"w{k}", "files": list(FILES), "metrics": {}}
    storage.write_json(manifest, folder / "policy.json")
    metrics = {"overall": block(f1), "provenance": {"policy": f"w{k}"}}
    storage.write_json(metrics, folder / "validation/metrics.json")
    return folder, folder / "validation/metrics.json"


def choose(root: Path, f1s: dict[int, float]) -> list[Path]:
    """The folders of the best so far after each of these updates."""
    folders: list[Path] = []
    for k, f1 in f1s.items():
        folder, dev = policy(root, k, f1)
        words = ["--policy", str(folder), "--dev", str(dev), "--out", str(folder / "best")]
        best.main(words + (["--before", str(folders[-1])] if folders else []))
        folders.append(folder / "best")
    return folders


def test_the_best_so_far_is_taken_and_the_earlier_of_equals(tmp_path):
    folders = choose(tmp_path, {2: 0.5, 4: 0.5, 6: 0.75, 7: 0.625})
    manifests = [storage.read_json(folder / "policy.json") for folder in folders]
    assert [manifest["weights_sha256"] for manifest in manifests] == ["w2", "w2", "w6", "w6"]
    assert manifests[-1]["iteration"] == 6
    assert manifests[-1]["selected"] == {
        "by": "dev F1",
        "iteration": 6,
        "f1": 0.75,
        "validated": {"2": 0.5, "4": 0.5, "6": 0.75, "7": 0.625},
    }


def test_a_best_policy_is_whole_and_takes_no_room(tmp_path):
    first, second = choose(tmp_path, {2: 0.5, 4: 0.25})
    for folder in (first, second):
        assert sorted(path.name for path in folder.iterdir()) == ["best.cost.json", *FILES, "policy.json"]
        assert (folder / FILES[1]).read_text() == "model.safetensors of 2"
        assert (folder / FILES[1]).samefile(tmp_path / "002" / FILES[1])
    (tmp_path / "002" / FILES[1]).unlink()
    assert (second / FILES[1]).read_text() == "model.safetensors of 2"


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    (folder,) = choose(tmp_path, {2: 0.5})
    assert (folder / FILES[1]).read_text() == "model.safetensors of 2"
    assert not (folder / FILES[1]).samefile(tmp_path / "002" / FILES[1])


def test_a_validation_of_another_policy_is_refused(tmp_path, capsys):
    folder, _ = policy(tmp_path, 2, 0.5)
    _, other = policy(tmp_path, 4, 0.5)
    message = refusal(capsys, best.main, "--policy", folder, "--dev", other, "--out", tmp_path / "best")
    assert "of another policy than" in message
    assert not (tmp_path / "best").exists()
