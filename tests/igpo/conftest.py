"""What tests of tables, comparisons and pages read."""

from pathlib import Path

import pytest
import results_tree


@pytest.fixture
def made(tmp_path) -> tuple[list[Path], list[Path]]:
    """The metrics of two seeds' evaluations, and the folders of their iterations."""
    return results_tree.write_results(tmp_path / "results")
