# Wires only: parameters, their check, the rules of workflow/rules/, and what `snakemake` makes.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/loop.smk"
include: "workflow/rules/validation.smk"
include: "workflow/rules/tables.smk"


rule all:
    default_target: True
    input:
        "results/coverage.json",
        "results/tables/main.md",
        "results/report.html",
        "results/track.json",
        [f"{folder}/policy.json" for folder in layout.best_policies(RUN)],
