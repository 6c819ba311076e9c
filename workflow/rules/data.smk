# What every arm and seed share: corpus, indexes, questions, base model, warm start.
INDEXES = expand("results/index/{kind}/manifest.json", kind=KINDS)
INDEX_OPTIONS = " ".join(f"--index results/index/{kind}" for kind in KINDS)


rule corpus:
    input:
        checks.source_files(config["corpus"]["source"]),
    output:
        "results/corpus.parquet",
    log:
        "logs/corpus.log",
    # Indexes, and so what comes before them, go ahead of the model, which would else start beside this stage
    # and hold them up: while they take all cores, the process behind MODEL_STAGE makes its imports.
    priority: 1
    threads: model_threads
    params:
        code=code("retrieval.corpus"),
        config=section("corpus"),
        source=config["corpus"]["source"],
    shell:
        "exec python -m retrieval.corpus --config {params.config:q} --source {params.source:q}"
        " --out {output} > {log} 2>&1"


def shards(wildcards):
    """The folders of vectors that a dense index is made of; none if the index stage encodes itself."""
    count = config["index"]["shards"]
    several = wildcards.kind == "dense" and count > 1
    return [f"results/index/vectors/{shard}" for shard in range(1, count + 1)] if several else []


rule encode:
    input:
        checks.encoder_files(config, "dense"),
        corpus="results/corpus.parquet",
    output:
        temp(directory("results/index/vectors/{shard}")),
    log:
        "logs/encode_{shard}.log",
    benchmark:
        "logs/benchmark/encode_{shard}.tsv"
    priority: 1
    threads: model_threads
    resources:
        gpu=1,
    params:
        code=code("retrieval.encode"),
        config=section("index"),
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} retrieval.encode --config {params.config:q} --corpus {input.corpus} --shard {wildcards.shard}"
        " --out {output} > {log} 2>&1"


rule index:
    input:
        lambda wildcards: checks.encoder_files(config, wildcards.kind),
        corpus="results/corpus.parquet",
        vectors=shards,
    output:
        "results/index/{kind}/manifest.json",
    log:
        "logs/index_{kind}.log",
    benchmark:
        "logs/benchmark/index_{kind}.tsv"
    priority: 1
    threads: model_threads
    resources:
        gpu=lambda wildcards: int(wildcards.kind == "dense"),
    params:
        code=code("retrieval.index"),
        config=section("index"),
        vectors=lambda wildcards, input: f"--vectors {input.vectors}" if input.vectors else "",
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} retrieval.index --config {params.config:q} --corpus {input.corpus}"
        " --kind {wildcards.kind} {params.vectors}"
        " --out results/index/{wildcards.kind} > {log} 2>&1"


rule indexes:
    input:
        INDEXES,
    output:
        "results/index.sha256",
    shell:
        "sha256sum {input} > {output}"


rule model:
    input:
        checks.source_files(config["model"]["source"]),
    output:
        "results/models/base/policy.json",
    log:
        "logs/model.log",
    params:
        code=code("igpo.model"),
        config=section("model"),
        source=config["model"]["source"],
    shell:
        "exec {MODEL_STAGE} igpo.model --config {params.config:q} --source {params.source:q}"
        " --out results/models/base > {log} 2>&1"


rule judge_model:
    input:
        checks.source_files(config["judge"]["model"]),
    output:
        "results/models/judge/policy.json",
    log:
        "logs/judge_model.log",
    params:
        code=code("igpo.model"),
        config=json.dumps({"source": config["judge"]["model"]}),
    shell:
        "exec {MODEL_STAGE} igpo.model --config {params.config:q} --out results/models/judge > {log} 2>&1"


rule questions:
    input:
        checks.source_files(config["questions"]["source"]),
        corpus="results/corpus.parquet",
    output:
        expand("results/questions/{split}.parquet", split=["train", "dev", "test"]),
    log:
        "logs/questions.log",
    params:
        code=code("igpo.questions"),
        # functions: a plain string's {split} would be taken for a wildcard
        config=lambda wildcards: section("questions"),
        source=lambda wildcards: config["questions"]["source"],
    shell:
        "exec python -m igpo.questions --config {params.config:q} --source {params.source:q} --corpus {input.corpus}"
        " --out results/questions > {log} 2>&1"


rule coverage:
    input:
        INDEXES,
        questions="results/questions/test.parquet",
    output:
        "results/coverage.json",
    log:
        "logs/coverage.log",
    threads: model_threads
    params:
        code=code("retrieval.coverage"),
        indexes=INDEX_OPTIONS,
    shell:
        "exec {MODEL_STAGE} retrieval.coverage {params.indexes} --questions {input.questions}"
        " --out {output} > {log} 2>&1"


rule warmup:
    input:
        INDEXES,
        policy="results/models/base/policy.json",
        questions="results/questions/train.parquet",
    output:
        "results/warmup/policy.json",
    log:
        "logs/warmup.log",
    benchmark:
        "logs/benchmark/warmup.tsv"
    threads: lambda wildcards: model_threads(wildcards, learning_slots(1))
    resources:
        gpu=lambda wildcards: learning_slots(1),
    params:
        code=code("igpo.warmup"),
        config=section("warmup"),
        date=config["rollout"]["date"],
        indexes=INDEX_OPTIONS,
    shell:
        "IGPO_GPUS={resources.gpu} exec {MODEL_STAGE} igpo.warmup --config {params.config:q} --policy results/models/base"
        " --questions {input.questions} {params.indexes} --date {params.date} --out results/warmup > {log} 2>&1"
