# How a run goes on dev questions, as files like all others, and which of its policies is best there.


def validated(folder):
    """(arm, number of updates) of the policy that is validated in `warmup` or `runs/ARM/sSEED/K`.

    The arm is None for the warm start's validation that arms share.
    """
    arm, _, k = layout.of_run(f"results/{folder}") or (None, None, 0)
    return arm, k


def validated_policy(wildcards):
    """Folder of that policy."""
    return f"results/{wildcards.folder}" if validated(wildcards.folder)[1] else "results/warmup"


def validation_depth(k, step):
    """Priority of a step (1 to 3) of the validation after update k: ahead of the rollouts that follow it.

    So that its weights may go early, and the log says early how the run goes.
    """
    return 4 * (k + 1) + step


def validation_settings(folder):
    """Its section `rollout`."""
    return layout.validation_settings(config, validated(folder)[0])


def validation_section(folder):
    """The same as JSON."""
    return json.dumps(validation_settings(folder), sort_keys=True)


# Greedy answers to the same dev questions each time; no iteration's time holds that of this rule.
rule validation_rollout:
    input:
        INDEXES,
        lambda wildcards: weights(validated_policy(wildcards)),
        policy=lambda wildcards: f"{validated_policy(wildcards)}/policy.json",
        questions="results/questions/dev.parquet",
    output:
        "results/{folder}/validation/rollouts.parquet",
    log:
        "logs/{folder}/validation/rollout.log",
    benchmark:
        "logs/benchmark/{folder}/validation/rollout.tsv"
    wildcard_constraints:
        folder=r"warmup|runs/\w+/s\d+/\d{3}",
    priority: lambda wildcards: validation_depth(validated(wildcards.folder)[1], 1)
    threads: model_threads
    resources:
        gpu=lambda wildcards: acting_slots(validation_settings(wildcards.folder)["tensor_parallel"]),
    params:
        code=lambda wildcards: acting_code("rollout", validation_settings(wildcards.folder)["protocol"]),
        config=lambda wildcards: validation_section(wildcards.folder),
        policy=validated_policy,
        indexes=INDEX_OPTIONS,
        seed=0,
        iteration=1,
        shard=shard_option,
    shell:
        ROLLOUT


def updates(wildcards):
    """How many updates are behind the choice of a best policy: k, or all of a run."""
    return int(wildcards.get("k", RUN["iterations"]))


def contenders(wildcards):
    """The policy after update k, or a run's last, with its validation; the best of those before it."""
    arm, seed, k = wildcards.arm, wildcards.seed, updates(wildcards)
    policy, before = layout.folder(arm, seed, k), layout.best_before(RUN, k)
    found = {"policy": f"{policy}/policy.json", "weights": weights(policy)}
    found["dev"] = f"{policy}/validation/metrics.json"
    if before:
        best = f"{layout.folder(arm, seed, before)}/best"
        found |= {"before": f"{best}/policy.json", "best_weights": weights(best)}
    return found


def before_option(wildcards, input):
    """The stage's option for the best policy before; the first has none."""
    return f"--before {Path(input.before).parent}" if "before" in input.keys() else ""


# Best policies are hard links, so that a run has no more sets of weights on the disk for them.
rule best_so_far:
    input:
        unpack(contenders),
    output:
        policy=f"{FOLDER}/best/policy.json",
        weights=kept(f"{FOLDER}/best/model.safetensors"),
    log:
        "logs/runs/{arm}/s{seed}/{k}/best.log",
    priority: lambda wildcards: validation_depth(updates(wildcards), 3)
    params:
        code=code("igpo.training.best"),
        policy=subpath(input.policy, parent=True),
        before=before_option,
        out=subpath(output.policy, parent=True),
    shell:
        "exec python -m igpo.training.best --policy {params.policy} --dev {input.dev} {params.before}"
        " --out {params.out} > {log} 2>&1"


# The same for a whole run.
use rule best_so_far as best with:
    output:
        policy="results/runs/{arm}/s{seed}/best/policy.json",
        weights="results/runs/{arm}/s{seed}/best/model.safetensors",
    log:
        "logs/runs/{arm}/s{seed}/best.log",
