# Wires only: parameters, their check, the rules of workflow/rules/, and what `snakemake` makes.
import json
import os
import subprocess
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/loop.smk"
include: "workflow/rules/validation.smk"
include: "workflow/rules/tables.smk"


if config["rollout"]["shards"] > 1 or config["score"]["shards"] > 1:

    include: "workflow/rules/shards.smk"


# Runs in MLflow while they go on; it ends when this process does.
onstart:
    with open(".snakemake/follow.log", "w") as output:
        subprocess.Popen(
            [sys.executable, "-m", "igpo.tracking.follow", "--config", json.dumps(config)],
            env={name: value for name, value in os.environ.items() if name != "IGPO_DIE_WITH_PARENT"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


rule all:
    default_target: True
    input:
        "results/coverage.json",
        "results/tables/main.md",
        "results/report.html",
        "results/track.json",
        [f"{folder}/policy.json" for folder in layout.best_policies(RUN)],
        [f"{folder}/README.md" for folder in CARDS],
