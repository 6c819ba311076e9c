# A table in several jobs of its section's `shards`, and the job that joins them. Rules of the same names make
# the tables of sections with one shard.

SHARDS = {"rollout": config["rollout"]["shards"], "score": config["score"]["shards"]}
SHARDED = "|".join(name for name, count in SHARDS.items() if count > 1)


localrules:
    join,


ruleorder: copy > join > rollout
ruleorder: join > score
ruleorder: join > validation_rollout
ruleorder: join > evaluation_rollout


use rule rollout as rollout_shard with:
    output:
        temp(f"{FOLDER}/shards/{{shard}}/rollouts.parquet"),
    log:
        "logs/runs/{arm}/s{seed}/{k}/rollout_{shard}.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/rollout_{shard}.tsv"


use rule score as score_shard with:
    output:
        temp(f"{FOLDER}/shards/{{shard}}/scores.parquet"),
    log:
        "logs/runs/{arm}/s{seed}/{k}/score_{shard}.log",
    benchmark:
        "logs/benchmark/runs/{arm}/s{seed}/{k}/score_{shard}.tsv"


use rule validation_rollout as validation_rollout_shard with:
    output:
        temp("results/{folder}/validation/shards/{shard}/rollouts.parquet"),
    log:
        "logs/{folder}/validation/rollout_{shard}.log",
    benchmark:
        "logs/benchmark/{folder}/validation/rollout_{shard}.tsv"


use rule evaluation_rollout as evaluation_rollout_shard with:
    output:
        temp("results/evaluations/{name}/shards/{shard}/rollouts.parquet"),
    log:
        "logs/evaluations/{name}/rollout_{shard}.log",
    benchmark:
        "logs/benchmark/evaluations/{name}/rollout_{shard}.tsv"


def shard_files(wildcards):
    """The shards of a table."""
    numbers = range(1, SHARDS[wildcards.stage] + 1)
    return [f"results/{wildcards.folder}/shards/{number}/{wildcards.stage}s.parquet" for number in numbers]


rule join:
    input:
        shard_files,
    output:
        "results/{folder}/{stage}s.parquet",
    log:
        "logs/{folder}/{stage}_join.log",
    wildcard_constraints:
        folder=r"(?!.*/shards/).*",
        stage=SHARDED,
    params:
        code=code("igpo.experiment.join"),
    shell:
        "exec python -m igpo.experiment.join --stage {wildcards.stage} --shards {input} --out {output} > {log} 2>&1"
