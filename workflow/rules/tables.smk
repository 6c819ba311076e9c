# From policies to the reader: evaluation rollouts, metrics, tables, page, MLflow.
import functools

COMPARED = {table: layout.compared(config, table) for table in checks.COMPARISONS}
MAIN = layout.evaluations(RUN)
EVALUATIONS = functools.reduce(dict.__or__, COMPARED.values(), MAIN)  # all that any table may ask for
RUN_FOLDERS = layout.iterations(RUN)
METRICS = expand("results/evaluations/{name}/metrics.json", name=MAIN)
QUESTION_METRICS = expand("results/evaluations/{name}/questions.parquet", name=MAIN)
VALIDATION_OPTION = f"--validations {' '.join(VALIDATIONS)}" if VALIDATIONS else ""
DEV_FIGURE = ["dev"] if VALIDATIONS else []
CURVES = expand(
    "{folder}/{file}",
    folder=RUN_FOLDERS,
    file=["metrics.json", "policy.json", "scores.parquet", "health.json"],
)


def evaluation_settings(name):
    """The `rollout` section of an evaluation's arm with `evaluate.rollout` laid over it."""
    settings = layout.dev_settings if name.startswith("dev/") else layout.evaluation_settings
    return settings(config, EVALUATIONS[name][0])


def evaluation_questions(wildcards):
    """Dev questions for an evaluation `dev/NAME`, test questions for the others."""
    return f"results/questions/{'dev' if wildcards.name.startswith('dev/') else 'test'}.parquet"


def evaluation_section(name):
    """The same as JSON."""
    return json.dumps(evaluation_settings(name), sort_keys=True)


def searches(wildcards):
    """Whether the evaluated arm's protocol asks the indexes."""
    return protocols.find(evaluation_settings(wildcards.name)["protocol"]).searches


rule evaluation_rollout:
    input:
        lambda wildcards: INDEXES if searches(wildcards) else [],
        lambda wildcards: weights(EVALUATIONS[wildcards.name][1]),
        policy=lambda wildcards: f"{EVALUATIONS[wildcards.name][1]}/policy.json",
        questions=evaluation_questions,
    output:
        "results/evaluations/{name}/rollouts.parquet",
    log:
        "logs/evaluations/{name}/rollout.log",
    benchmark:
        "logs/benchmark/evaluations/{name}/rollout.tsv"
    wildcard_constraints:
        name="|".join(EVALUATIONS),
    threads: model_threads
    resources:
        gpu=lambda wildcards: acting_slots(evaluation_settings(wildcards.name)["tensor_parallel"]),
    params:
        code=lambda wildcards: acting_code("rollout", evaluation_settings(wildcards.name)["protocol"]),
        config=lambda wildcards: evaluation_section(wildcards.name),
        policy=lambda wildcards: EVALUATIONS[wildcards.name][1],
        indexes=lambda wildcards: INDEX_OPTIONS if searches(wildcards) else "",
        seed=0,
        iteration=1,
        shard=shard_option,
    shell:
        ROLLOUT


def kind(folder):
    """What the rollouts of a folder are of: `evaluation`, `iteration` or `validation`."""
    if folder.endswith("/validation"):
        return "validation"
    return "iteration" if folder.startswith("runs/") else "evaluation"


def evaluated_questions(wildcards):
    """Train questions for the rollouts of an iteration, dev for a validation; an evaluation's own."""
    dev = kind(wildcards.folder) == "validation" or wildcards.folder.startswith("evaluations/dev/")
    split = "train" if kind(wildcards.folder) == "iteration" else "dev" if dev else "test"
    return f"results/questions/{split}.parquet"


def acting_policy(folder):
    """(arm, seed, iteration) of the policy that acts in a folder's rollouts; None: has none.

    The iteration is "best" for a run's best policy: which that is only its manifest knows.
    """
    if kind(folder) == "evaluation":
        arm, policy = EVALUATIONS[folder.removeprefix("evaluations/")]
        _, seed, k = layout.of_run(policy) or (None, None, 0 if policy == layout.folder("", 0, 0) else None)
        return arm, seed, k
    arm, seed, k = layout.of_run(f"results/{folder}") or (None, None, 0)
    if kind(folder) == "validation":
        return arm, seed if k else None, k
    return arm, seed, k - 1


def best_manifest(wildcards):
    """The manifest of the best policy, where that is evaluated: which iteration was taken, and by what."""
    if kind(wildcards.folder) == "evaluation" and acting_policy(wildcards.folder)[2] == "best":
        return f"{EVALUATIONS[wildcards.folder.removeprefix('evaluations/')][1]}/policy.json"
    return []


def asked(wildcards):
    """The settings of the rollouts that are evaluated: every question and sample of theirs must be there."""
    folder = wildcards.folder
    return {
        "iteration": lambda: section("rollout", layout.of_run(f"results/{folder}")[0]),
        "validation": lambda: validation_section(folder),
        "evaluation": lambda: evaluation_section(folder.removeprefix("evaluations/")),
    }[kind(folder)]()


def coverage(wildcards):
    """What the index holds of the test questions, for their evaluations."""
    return "results/coverage.json" if evaluated_questions(wildcards).endswith("/test.parquet") else []


def provenance(wildcards):
    """Where a folder's numbers come from, as JSON; code as digests of stages."""
    arm, seed, iteration = acting_policy(wildcards.folder)
    stages = ["rollout", "evaluate"]
    stages += [] if iteration is None else ["warmup"]
    stages += ["score", "advantage", "train"] if iteration else []
    acting, protocol = ("rollout", "score"), json.loads(asked(wildcards))["protocol"]
    how = {"best": "best_dev", RUN["iterations"]: "last"} if iteration else {}
    selected = {"selected": how[iteration]} if kind(wildcards.folder) == "evaluation" and how else {}
    return json.dumps(
        {
            "arm": "warmup" if seed is None and iteration == 0 else arm,
            "seed": seed,
            "iteration": iteration,
            **selected,
            "corpus": config["corpus"]["source"],
            "model": config["model"]["source"],
            "code": {
                name: acting_code(name, protocol) if name in acting else code(f"igpo.{name}")
                for name in stages
            },
        }
    )


def judgements(wildcards):
    """The judge's verdicts on an evaluation; none without a judge or for other rollouts."""
    judged = config["judge"]["model"] and kind(wildcards.folder) == "evaluation"
    return f"results/{wildcards.folder}/judgements.parquet" if judged else []


# A judge's model that runs here.
JUDGE = ["results/models/judge"] if config["judge"]["model"] and not config["judge"]["url"] else []


rule judge:
    input:
        [f"{folder}/policy.json" for folder in JUDGE],
        rollouts="results/evaluations/{name}/rollouts.parquet",
        questions=evaluation_questions,
    output:
        "results/evaluations/{name}/judgements.parquet",
    log:
        "logs/evaluations/{name}/judge.log",
    wildcard_constraints:
        name="|".join(EVALUATIONS),
    threads: lambda wildcards: model_threads(wildcards) if JUDGE else 1
    resources:
        gpu=lambda wildcards: acting_slots(config["judge"]["tensor_parallel"]) if JUDGE else 0,
    params:
        code=code("igpo.judge"),
        config=section("judge"),
        policy=[f"--policy {folder}" for folder in JUDGE],
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.judge --config {params.config:q} --rollouts {input.rollouts}"
        " --questions {input.questions} {params.policy} --out {output} > {log} 2>&1"


def evaluate_priority(wildcards):
    """That of a validation's step; the rest has time."""
    folder = wildcards.folder
    return validation_depth(validated(folder)[1], 2) if kind(folder) == "validation" else 0


rule evaluate:
    input:
        rollouts="results/{folder}/rollouts.parquet",
        questions=evaluated_questions,
        coverage=coverage,
        judgements=judgements,
        selected=best_manifest,
    output:
        metrics="results/{folder}/metrics.json",
        questions="results/{folder}/questions.parquet",
    log:
        "logs/{folder}/evaluate.log",
    wildcard_constraints:
        folder=r"runs/\w+/s\d+/\d{3}(/validation)?|warmup/validation|evaluations/(dev/)?\w+",
    priority: evaluate_priority
    params:
        code=code("igpo.evaluate"),
        config=lambda wildcards: section("evaluate", acting_policy(wildcards.folder)[0]),
        coverage=lambda wildcards, input: (f"--coverage {input.coverage}" if input.coverage else ""),
        judgements=lambda wildcards, input: (f"--judgements {input.judgements}" if input.judgements else ""),
        selected=lambda wildcards, input: f"--selected {input.selected}" if input.selected else "",
        asked=asked,
        provenance=provenance,
    shell:
        "exec python -m igpo.evaluate --config {params.config:q} --rollouts {input.rollouts}"
        " --questions {input.questions} {params.coverage} {params.judgements} {params.selected} --asked {params.asked:q} --provenance {params.provenance:q}"
        " --out {output.metrics} > {log} 2>&1"


def first_health(wildcards):
    """The health of a run's first iteration, with which that of later ones is compared."""
    start = f"{layout.folder(wildcards.arm, wildcards.seed, 1)}/health.json"
    return start if int(wildcards.k) > 1 else []


def dev_metrics(wildcards):
    """What validations say of the policy after update k and of the warm start; nothing if k isn't validated."""
    folders = [
        layout.validation_folder(config, wildcards.arm, wildcards.seed, k) for k in (int(wildcards.k), 0)
    ]
    return [f"{folder}/metrics.json" for folder in folders] if folders[0] in VALIDATIONS else []


# Its warnings are for the terminal too.
rule health:
    input:
        rollouts=f"{FOLDER}/rollouts.parquet",
        scores=f"{FOLDER}/scores.parquet",
        advantages=f"{FOLDER}/advantages.parquet",
        policy=f"{FOLDER}/policy.json",
        questions=TRAIN_QUESTIONS,
        start=first_health,
        dev=dev_metrics,
    output:
        f"{FOLDER}/health.json",
    log:
        "logs/runs/{arm}/s{seed}/{k}/health.log",
    params:
        code=code("igpo.health"),
        config=section("health"),
        start=lambda wildcards, input: f"--start {input.start}" if input.start else "",
        dev=lambda wildcards, input: f"--dev {input.dev}" if input.dev else "",
    shell:
        "python -m igpo.health --config {params.config:q} --rollouts {input.rollouts} --scores {input.scores}"
        " --advantages {input.advantages} --policy {input.policy} --questions {input.questions}"
        " {params.start} {params.dev} --out {output} > {log} 2>&1; sed -n '/^warning: /p' {log} >&2"


rule tables:
    input:
        CURVES,
        VALIDATION_METRICS,
        QUESTION_METRICS,
        published.path("main"),
        metrics=METRICS,
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
        validations=VALIDATION_OPTION,
    shell:
        "exec python -m igpo.tables --config {params.config:q} --metrics {input.metrics}"
        " --iterations {params.iterations} {params.validations} --out results/tables > {log} 2>&1"


def compared(file):
    """`file` of every evaluation that the table of the wildcards compares."""
    return lambda wildcards: expand(
        "results/evaluations/{name}/{file}", name=COMPARED[wildcards.table], file=file
    )


def validations_of_compared(wildcards):
    """The validations of those of its arms that `run.arms` has.

    They are made while the policies are there: else another target would train these arms again for them.
    """
    folders = layout.validations(config, layout.compared_arms(config, wildcards.table))
    return expand("{folder}/metrics.json", folder=folders)


def published_rows(wildcards):
    """The file of the paper's rows that stand under ours; none for a check that it has no numbers for."""
    return published.path(wildcards.table) if wildcards.table in published.PLACES else []


rule comparison:
    input:
        compared("questions.parquet"),
        validations_of_compared,
        published_rows,
        metrics=compared("metrics.json"),
    output:
        multiext("results/tables/{table}", ".csv", ".md", ".tex"),
    log:
        "logs/tables_{table}.log",
    wildcard_constraints:
        table="algorithms|ablation|basis|gamma",
    params:
        code=code("igpo.comparisons.comparison"),
        config=section("tables"),
    shell:
        "exec python -m igpo.comparisons.comparison --config {params.config:q} --table {wildcards.table}"
        " --metrics {input.metrics} --out results/tables > {log} 2>&1"


rule per_question:
    input:
        compared("questions.parquet"),
        validations_of_compared,
        published_rows,
        metrics=compared("metrics.json"),
    output:
        multiext("results/tables/{table}", ".csv", ".md", ".tex"),
    log:
        "logs/tables_{table}.log",
    wildcard_constraints:
        table="per_question",
    params:
        code=code("igpo.comparisons.per_question"),
        config=section("tables"),
    shell:
        "exec python -m igpo.comparisons.per_question --config {params.config:q} --metrics {input.metrics}"
        " --out results/tables > {log} 2>&1"


rule single_turn:
    input:
        compared("questions.parquet"),
        lambda wildcards: expand(
            "{folder}/{file}.parquet",
            folder=layout.compared_iterations(config, wildcards.table),
            file=["rollouts", "scores"],
        ),
        validations_of_compared,
        metrics=compared("metrics.json"),
    output:
        multiext("results/tables/{table}", ".csv", ".md", ".tex"),
    log:
        "logs/tables_{table}.log",
    wildcard_constraints:
        table="single_turn",
    params:
        code=code("igpo.comparisons.single_turn"),
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        iterations=lambda wildcards: layout.compared_iterations(config, wildcards.table),
    shell:
        "exec python -m igpo.comparisons.single_turn --config {params.config:q} --metrics {input.metrics}"
        " --iterations {params.iterations} --out results/tables > {log} 2>&1"


COLLAPSE_FOLDERS = layout.collapse_iterations(config)


rule collapse:
    input:
        expand(
            "{folder}/{file}.parquet",
            folder=COLLAPSE_FOLDERS,
            file=["rollouts", "scores"],
        ),
        VALIDATION_METRICS,
        questions=TRAIN_QUESTIONS,
    output:
        multiext("results/tables/collapse", ".csv", ".md", ".tex"),
    log:
        "logs/tables_collapse.log",
    params:
        code=code("igpo.comparisons.collapse"),
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        iterations=COLLAPSE_FOLDERS,
    shell:
        "exec python -m igpo.comparisons.collapse --config {params.config:q} --questions {input.questions}"
        " --iterations {params.iterations} --out results/tables > {log} 2>&1"


rule time_by_phase:
    input:
        VALIDATION_METRICS,
        expand("{folder}/{file}", folder=RUN_FOLDERS, file=["policy.json", "metrics.json"]),
        published.path("time"),
    output:
        multiext("results/tables/time", ".csv", ".md", ".tex"),
    log:
        "logs/tables_time.log",
    params:
        code=code("igpo.comparisons.time_by_phase"),
        iterations=RUN_FOLDERS,
    shell:
        "exec python -m igpo.comparisons.time_by_phase --iterations {params.iterations} --out results/tables > {log} 2>&1"


# `snakemake tables/ablation` makes the table and prints it; a target's name is a file's.
rule show_table:
    input:
        "results/tables/{table}.md",
    output:
        "tables/{table}",
    wildcard_constraints:
        table="|".join([*published.PLACES, *published.WITHOUT_NUMBERS]),
    shell:
        "tee {output} < {input}"


# `snakemake figures`
rule figures:
    input:
        CURVES,
        VALIDATION_METRICS,
    output:
        expand(
            "results/figures/{name}.{form}",
            name=[*DEV_FIGURE, "training", "evidence", "token_efficiency", "collapse", "gold_entropy"],
            form=["svg", "pdf", "png"],
        ),
    log:
        "logs/figures.log",
    params:
        code=code("igpo.figures"),
        iterations=RUN_FOLDERS,
        validations=VALIDATION_OPTION,
    shell:
        "exec python -m igpo.figures --iterations {params.iterations} {params.validations} --out results/figures > {log} 2>&1"


rule report:
    input:
        CURVES,
        VALIDATION_METRICS,
        QUESTION_METRICS,
        published.path("main"),
        published.path("curves"),
        sorted((ROOT / "igpo/reporting/page").iterdir()),
        expand("{folder}/advantages.parquet", folder=RUN_FOLDERS),
        expand("{folder}/rollouts.parquet", folder=[*RUN_FOLDERS, *VALIDATIONS]),
        expand("results/evaluations/{name}/rollouts.parquet", name=MAIN),
        policy="results/models/base/policy.json",
        coverage="results/coverage.json",
        metrics=METRICS,
        questions=expand("results/questions/{split}.parquet", split=["train", "dev", "test"]),
        tables="results/tables/main.md",
    output:
        "results/report.html",
    log:
        "logs/report.log",
    params:
        code=code("igpo.report"),
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        iterations=RUN_FOLDERS,
        validations=VALIDATION_OPTION,
    shell:
        "exec python -m igpo.report --config {params.config:q} --metrics {input.metrics}"
        " --iterations {params.iterations} {params.validations} --coverage {input.coverage} --questions {input.questions}"
        " --policy results/models/base --out {output} > {log} 2>&1"


# Trained policies that are evaluated: folder -> (evaluation, arm).
CARDS = {folder: (name, arm) for name, (arm, folder) in layout.selected_policies(RUN).items()}


rule card:
    input:
        policy="{folder}/policy.json",
        metrics=lambda wildcards: f"results/evaluations/{CARDS[wildcards.folder][0]}/metrics.json",
    output:
        "{folder}/README.md",
    log:
        "logs/{folder}/card.log",
    wildcard_constraints:
        folder="|".join(CARDS) or "(?!)",
    params:
        code=code("igpo.publishing.card"),
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        arm=lambda wildcards: CARDS[wildcards.folder][1],
    shell:
        "exec python -m igpo.publishing.card --config {params.config:q} --arm {params.arm} --policy {wildcards.folder}"
        " --metrics {input.metrics} --out {output} > {log} 2>&1"


rule track:
    input:
        CURVES,
        VALIDATION_METRICS,
        QUESTION_METRICS,
        expand("{folder}/advantages.parquet", folder=RUN_FOLDERS),
        metrics=METRICS,
        tables="results/tables/main.md",
        report="results/report.html",
    output:
        "results/track.json",
    log:
        "logs/track.log",
    params:
        code=code("igpo.track"),
        config=lambda wildcards: json.dumps(config, sort_keys=True),
        iterations=RUN_FOLDERS,
        validations=VALIDATION_OPTION,
    shell:
        "exec python -m igpo.track --config {params.config:q} --metrics {input.metrics}"
        " --iterations {params.iterations} {params.validations} --tables results/tables"
        " --report {input.report} --out {output} > {log} 2>&1"
