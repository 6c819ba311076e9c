"""Where the repository lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PARAMS_FILE = ROOT / "params.yaml"
