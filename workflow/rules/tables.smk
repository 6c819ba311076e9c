# From policies to the reader: evaluation rollouts, metrics, tables, page, MLflow.
ITERATIONS = [f"{k:03d}" for k in range(1, RUN["iterations"] + 1)]
RUN_FOLDERS = expand(FOLDER, arm=RUN["arms"], seed=RUN["seeds"], k=ITERATIONS)


def evaluations():
    """What is evaluated: name -> (arm or None, folder of the policy), in the order of the table."""
    found = {name: (name, "results/models/base") for name in RUN["baselines"]}
    found["warmup"] = (None, "results/warmup")
    for arm in RUN["arms"] if ITERATIONS else []:
        for seed in RUN["seeds"]:
            found[f"{arm}_s{seed}"] = (
                arm,
                FOLDER.format(arm=arm, seed=seed, k=ITERATIONS[-1]),
            )
    return found


EVALUATIONS = evaluations()
EVALUATED = expand("results/evaluations/{name}", name=EVALUATIONS)


def evaluation_section(wildcards):
    """The arm's `rollout` section with `evaluate.rollout` laid over it."""
    arm = EVALUATIONS[wildcards.name][0]
    return section(
        "rollout", arm, **(ARMS[arm] if arm else config)["evaluate"]["rollout"]
    )


rule evaluation_rollout:
    input:
        INDEXES,
        policy=lambda wildcards: f"{EVALUATIONS[wildcards.name][1]}/policy.json",
        questions="results/questions/test.parquet",
    output:
        "results/evaluations/{name}/rollouts.parquet",
    log:
        "logs/evaluations/{name}/rollout.log",
    benchmark:
        "logs/benchmark/evaluations/{name}/rollout.tsv"
    wildcard_constraints:
        name="|".join(EVALUATIONS),
    threads: MODEL_THREADS
    resources:
        gpu=1,
    params:
        code=code("igpo.rollout"),
        config=evaluation_section,
        policy=lambda wildcards: EVALUATIONS[wildcards.name][1],
        indexes=INDEX_OPTIONS,
        arm=lambda wildcards: EVALUATIONS[wildcards.name][0] or "warmup",
        seed=0,
        iteration=1,
    shell:
        ROLLOUT


def evaluated_questions(wildcards):
    """Train questions for the rollouts of an iteration, test questions for an evaluation."""
    split = "train" if wildcards.folder.startswith("runs/") else "test"
    return f"results/questions/{split}.parquet"


rule evaluate:
    input:
        rollouts="results/{folder}/rollouts.parquet",
        questions=evaluated_questions,
    output:
        metrics="results/{folder}/metrics.json",
        questions="results/{folder}/questions.parquet",
    log:
        "logs/{folder}/evaluate.log",
    wildcard_constraints:
        folder=r"runs/\w+/s\d+/\d{3}|evaluations/\w+",
    params:
        code=code("igpo.evaluate"),
        config=section("evaluate"),
    shell:
        "exec python -m igpo.evaluate --config {params.config:q} --rollouts {input.rollouts}"
        " --questions {input.questions} --out {output.metrics} > {log} 2>&1"


rule tables:
    input:
        metrics=expand("{folder}/metrics.json", folder=EVALUATED),
        iterations=expand(
            "{folder}/{file}",
            folder=RUN_FOLDERS,
            file=["metrics.json", "policy.json", "scores.parquet"],
        ),
        published=f"{ROOT}/igpo/published.csv",
    output:
        expand(
            "results/tables/{file}",
            file=["main.csv", "main.md", "main.tex", "metrics.json", "curves.csv"],
        ),
    log:
        "logs/tables.log",
    params:
        code=code("igpo.tables"),
        config=section("tables"),
        iterations=RUN_FOLDERS,
    shell:
        "exec python -m igpo.tables --config {params.config:q} --metrics {input.metrics}"
        " --iterations {params.iterations} --out results/tables > {log} 2>&1"
