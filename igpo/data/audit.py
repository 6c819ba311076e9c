"""What `retrieval coverage` wrote."""

from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UserError


def read_coverage(path: Path) -> dict[str, Any]:
    """The content of coverage.json; UserError if it is something else."""
    content = storage.read_json(path)
    if not isinstance(content, dict) or {"benchmarks", "uncovered"} - content.keys():
        raise UserError(f"{path}: not what `retrieval coverage` writes")
    return content
