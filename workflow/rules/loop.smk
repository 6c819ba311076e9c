# One iteration of one arm and seed: rollout -> score -> advantage -> train; every arrow is a file.
import re

FOLDER = "results/runs/{arm}/s{seed}/{k}"
COPIES = layout.copies(config)
VALIDATIONS = layout.validations(config)
VALIDATION_METRICS = expand("{folder}/metrics.json", folder=VALIDATIONS)
# Iterations whose policies keep their weights.
KEPT = "|".join(f"{k:03d}" for k in layout.kept(RUN)) or "(?!)"
TRAIN_QUESTIONS = "results/questions/train.parquet"
ROLLOUT = (
    "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.rollout --config {params.config:q} --policy {params.policy}"
    " --questions {input.questions} {params.indexes} --seed {params.seed} --iteration {params.iteration}"
    " {params.shard} --out {output} > {log} 2>&1"
)


ruleorder: copy > rollout
ruleorder: copy > score


def previous_folder(wildcards):
    """Folder of the policy that acts in iteration k: that of k-1, or the warm start."""
    return layout.folder(wildcards.arm, wildcards.seed, int(wildcards.k) - 1)


def previous_policy(wildcards):
    """The manifest of that policy."""
    return f"{previous_folder(wildcards)}/policy.json"


def weights(folder):
    """The weights of a run's policy, for a stage that it acts in: they go after the last such stage.

    `policy.json` says whether they have changed, so their age says nothing: best policies are hard links.
    """
    return ancient(f"{folder}/model.safetensors") if folder.startswith("results/runs/") else []


def previous_weights(wildcards):
    """The weights of the policy that acts in iteration k."""
    return weights(previous_folder(wildcards))


def previous_health(wildcards):
    """The health of iteration k-1, which `health.on_collapse` stop waits for; made again, it changes nothing."""
    waits = config["health"]["on_collapse"] == "stop" and int(wildcards.k) > 1
    return ancient(f"{previous_folder(wildcards)}/health.json") if waits else []


def previous_state(wildcards):
    """The optimiser's state after iteration k-1; the first iteration starts without one."""
    return f"{previous_folder(wildcards)}/training_state.st" if int(wildcards.k) > 1 else []


def kept(path):
    """`path`, removed once nothing needs it any more unless `run.keep_training_state`."""
    return path if RUN["keep_training_state"] else temp(path)


def state_option(wildcards):
    """The stage's option for the last update, whose state nothing needs unless `run.keep_training_state`."""
    last = int(wildcards.k) >= RUN["iterations"]
    return "--no-state" if last and not RUN["keep_training_state"] else ""


def depth(step):
    """Priority of a step (0 to 3) of iteration k: a run that has begun goes on before another one begins.

    So that on one GPU the training state of one run at a time lies on the disk.
    """
    return lambda wildcards: 4 * int(wildcards.k) + step


def cost_of(path):
    """What the stage that makes the file `path` of an iteration cost."""
    return path.replace("s.parquet", ".cost.json")


def update_slots(section):
    """Slots that the update of section `section`, `critic` or `train`, takes."""

    def slots(wildcards):
        settings = ARMS[wildcards.arm][section]
        return learning_slots(settings["processes"] * settings.get("nodes", 1))

    return slots


# Arms whose settings for it are equal share the first iteration's rollouts and scores, and what these cost.
rule copy:
    input:
        lambda wildcards: COPIES[f"results/{wildcards.file}"],
    output:
        "results/{file}",
    log:
        "logs/{file}.copy.log",
    wildcard_constraints:
        file="|".join(re.escape(path.removeprefix("results/")) for path in COPIES) or "(?!)",
    params:
        costs=lambda wildcards, input, output: f"{cost_of(input[0])} {cost_of(output[0])}",
    shell:
        "cp {input} {output} > {log} 2>&1 && cp {params.costs} >> {log} 2>&1"


rule rollout:
    input:
        INDEXES,
        previous_weights,
        previous_health,
        policy=previous_policy,
        questions=TRAIN_QUESTIONS,
    output:
        f"{FOLDER}/rollouts.parquet",
    log:
        "logs/runs/{arm}/s{seed}/{k}/rollout.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/rollout.tsv"
    priority: depth(0)
    threads: model_threads
    resources:
        gpu=lambda wildcards: acting_slots(ARMS[wildcards.arm]["rollout"]["tensor_parallel"]),
    params:
        code=lambda wildcards: acting_code("rollout", ARMS[wildcards.arm]["rollout"]["protocol"]),
        config=arm_section("rollout"),
        policy=previous_folder,
        indexes=INDEX_OPTIONS,
        seed=lambda wildcards: wildcards.seed,
        iteration=lambda wildcards: int(wildcards.k),
        shard=shard_option,
    shell:
        ROLLOUT


rule score:
    input:
        previous_weights,
        policy=previous_policy,
        reference="results/warmup/policy.json",
        rollouts=f"{FOLDER}/rollouts.parquet",
        questions=TRAIN_QUESTIONS,
        corpus="results/corpus.parquet",
    output:
        f"{FOLDER}/scores.parquet",
    log:
        "logs/runs/{arm}/s{seed}/{k}/score.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/score.tsv"
    priority: depth(1)
    threads: model_threads
    resources:
        gpu=lambda wildcards: acting_slots(ARMS[wildcards.arm]["score"]["processes"]),
    params:
        code=lambda wildcards: acting_code("score", ARMS[wildcards.arm]["rollout"]["protocol"]),
        config=arm_section("score"),
        policy=previous_folder,
        shard=shard_option,
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.score --config {params.config:q} --policy {params.policy}"
        " --reference results/warmup --rollouts {input.rollouts} --questions {input.questions}"
        " --corpus {input.corpus} {params.shard} --out {output} > {log} 2>&1"


def previous_critic(wildcards):
    """Folder of the critic that values iteration k: that of k-1, or the warm start."""
    k = int(wildcards.k) - 1
    return layout.folder(wildcards.arm, wildcards.seed, k) + ("/critic" if k else "")


def previous_critic_files(wildcards):
    """What the critic of iteration k starts from."""
    where = previous_critic(wildcards)
    state = ["training_state.st", "model.safetensors"] if where.endswith("/critic") else []
    return [f"{where}/{file}" for file in ("policy.json", *state)]


def values(wildcards):
    """A critic's values, for arms that ask for them."""
    return f"{FOLDER}/values.parquet" if ARMS[wildcards.arm]["advantage"]["method"] in WITH_CRITIC else []


rule critic:
    input:
        previous_critic_files,
        rollouts=f"{FOLDER}/rollouts.parquet",
        scores=f"{FOLDER}/scores.parquet",
    output:
        values=f"{FOLDER}/values.parquet",
        critic=f"{FOLDER}/critic/policy.json",
        weights=kept(f"{FOLDER}/critic/model.safetensors"),
        state=kept(f"{FOLDER}/critic/training_state.st"),
    log:
        "logs/runs/{arm}/s{seed}/{k}/critic.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/critic.tsv"
    priority: depth(2)
    threads: lambda wildcards: model_threads(wildcards, update_slots("critic")(wildcards))
    resources:
        gpu=update_slots("critic"),
    params:
        code=code("igpo.critic"),
        config=arm_section("critic"),
        gamma=lambda wildcards: ARMS[wildcards.arm]["advantage"]["gamma"],
        critic=previous_critic,
        out=subpath(output.critic, parent=True),
        state=state_option,
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.critic --config {params.config:q} --critic {params.critic}"
        " --gamma {params.gamma} --rollouts {input.rollouts} --scores {input.scores} --values {output.values}"
        " {params.state} --out {params.out} > {log} 2>&1"


def progress(wildcards):
    """The share of the run's iterations done with this one, for arms with weights that change over a run."""
    changing = any(isinstance(value, list) for value in ARMS[wildcards.arm]["advantage"].values())
    return f"--progress {int(wildcards.k) / RUN['iterations']}" if changing else ""


rule advantage:
    input:
        rollouts=f"{FOLDER}/rollouts.parquet",
        scores=f"{FOLDER}/scores.parquet",
        values=values,
    output:
        f"{FOLDER}/advantages.parquet",
    log:
        "logs/runs/{arm}/s{seed}/{k}/advantage.log",
    priority: depth(2)
    params:
        code=code("igpo.advantage"),
        config=arm_section("advantage"),
        values=lambda wildcards, input: f"--values {input.values}" if input.values else "",
        progress=progress,
    shell:
        "exec python -m igpo.advantage --config {params.config:q} --rollouts {input.rollouts}"
        " --scores {input.scores} {params.values} {params.progress} --out {output} > {log} 2>&1"


# An update over several nodes starts `srun` itself, which the Slurm executor lets it if a rule has `mpi`.
NODES = config["train"]["nodes"]
SPREAD = {"nodes": NODES, "tasks": NODES, "tasks_per_gpu": 0, "mpi": "srun"} if NODES > 1 else {}


rule train:
    input:
        previous_state,
        previous_weights,
        policy=previous_policy,
        rollouts=f"{FOLDER}/rollouts.parquet",
        scores=f"{FOLDER}/scores.parquet",
        advantages=f"{FOLDER}/advantages.parquet",
    output:
        policy=f"{FOLDER}/policy.json",
        weights=temp(f"{FOLDER}/model.safetensors"),
        state=kept(f"{FOLDER}/training_state.st"),
    log:
        "logs/runs/{arm}/s{seed}/{k}/train.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/train.tsv"
    wildcard_constraints:
        k=rf"(?!(?:000|{KEPT}))\d{{3}}",
    priority: depth(3)
    threads: lambda wildcards: model_threads(wildcards, update_slots("train")(wildcards))
    resources:
        **SPREAD,
        gpu=update_slots("train"),
    params:
        code=code("igpo.train"),
        config=arm_section("train"),
        policy=previous_folder,
        out=subpath(output.policy, parent=True),
        state=state_option,
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.train --config {params.config:q} --policy {params.policy}"
        " --rollouts {input.rollouts} --scores {input.scores} --advantages {input.advantages}"
        " {params.state} --out {params.out} > {log} 2>&1"


# Of the iterations whose policies are kept.
use rule train as train_kept with:
    output:
        policy=f"{FOLDER}/policy.json",
        weights=f"{FOLDER}/model.safetensors",
        state=kept(f"{FOLDER}/training_state.st"),
    wildcard_constraints:
        k=KEPT,


rule policies:
    input:
        VALIDATION_METRICS,
        policies=[f"{folder}/policy.json" for folder in layout.policies(RUN)],
    output:
        "results/policies.sha256",
    shell:
        "sha256sum {input.policies} > {output}"
