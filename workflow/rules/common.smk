# What every rule uses: the checked parameters, a stage's section of them, a digest of its code, paths.
import json
import shlex

ROOT = Path(workflow.basedir)
# Stages run as modules with this interpreter, whatever --directory or an inactive environment says.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["IGPO_DIE_WITH_PARENT"] = "1"
os.environ["TQDM_DISABLE"] = "1"  # logs are read as files
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from igpo import protocols
from igpo.credit.methods import WITH_CRITIC
from igpo.experiment import checks
from igpo.experiment import layout
from igpo.reporting import published
from igpo.training.memory import MALLOC
from pipeline.devices import gpu_devices
from pipeline.digest import code
from pipeline.errors import UserError
from pipeline.locks import hold
from pipeline.settings import apply_arm
from pipeline.settings import merge
from pipeline.settings import numbers
from pipeline.settings import read_params

# Held while this process lives, so that `make` clears a killed run's lock and no other.
Path(".snakemake").mkdir(exist_ok=True)
ALIVE = hold(Path(".snakemake/alive"))

os.environ |= MALLOC
# How long a thread looks for the others at a barrier before it sleeps, so that a busy process beside a stage
# doesn't hold up all of its threads: docs/results/beside.md
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# What the command line and its profile give: cores, and how many model stages share them at a time, each on a GPU if
# the machine has any.
GIVEN = workflow.resource_settings
CORES, SLOTS = GIVEN.cores, dict(GIVEN.resources.unwrapped_items()).get("gpu", 1)
GPUS = len(gpu_devices())

# `config` holds what --configfile and --config gave; the files are read again by a reader that refuses what would
# change a value unseen. One line and exit code 2 for what a user can mend; os._exit, since Snakemake would wrap
# SystemExit of an included file in a traceback.
try:
    layers = read_params([ROOT / "params.yaml", *workflow.overwrite_configfiles])
    config.update(merge(layers, numbers(config)))
    checks.check(config)
    checks.check_sources(config)
    if SLOTS < 1:
        raise UserError(f"--resources gpu={SLOTS}: give how many model stages may run at a time, at least 1")
    if 0 < GPUS < SLOTS and GIVEN.nodes is None:  # jobs on a cluster have its GPUs
        raise UserError(f"--resources gpu={SLOTS}: this machine has {GPUS}")
except UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)

ARMS = {name: apply_arm(config, name) for name in config["arms"]}
RUN = config["run"]
os.environ["IGPO_ITERATIONS"] = str(RUN["iterations"])  # for what snakemake_logger_plugin_igpo prints
KINDS = config["index"]["kinds"]
# How a model stage is started: on a CPU, importing what it needs would be most of what a short one does. In a
# job of a cluster, whose Snakemake is no main process, the forked stages' server would outlive the job.
FORKED = CORES and not GPUS and workflow.is_main_process
MODEL_STAGE = f"python {shlex.quote(str(ROOT / 'workflow/forked.py'))}" if FORKED else "python -m"


def on_cores():
    """Whether stages share this machine's cores; known once the workflow has been read."""
    return workflow.local_exec and CORES and not GPUS


def model_threads(wildcards, slots=1):
    """Threads of a model stage: its slots' share of the cores, which Snakemake puts into OMP_NUM_THREADS.

    On a cluster set-threads in the profile says how many.
    """
    return slots * max(1, CORES // SLOTS) if workflow.local_exec and CORES else 1


def learning_slots(gpus):
    """Slots of a stage that updates a model on so many GPUs; on CPU cores it needs all, and their memory."""
    return SLOTS if on_cores() else gpus


def acting_slots(gpus):
    """Slots of a stage that only reads a model; on CPU cores it is one, over however many processes."""
    return 1 if on_cores() else gpus


def section(name, arm=None):
    """One stage's parameters as JSON: what the stage reads, and what triggers its rerun."""
    return json.dumps((ARMS[arm] if arm else config)[name], sort_keys=True)


def arm_section(name):
    """The section `name` with the arm of the wildcards laid over it."""
    return lambda wildcards: section(name, wildcards.arm)


def shard_option(wildcards):
    """The option of a job that makes one shard of a table."""
    return f"--shard {wildcards.shard}" if wildcards.get("shard") else ""


def acting_code(stage, protocol):
    """Digest of a stage that reads and writes in a protocol's form."""
    return code(f"igpo.{stage}", protocols.module(protocol))


# Stages of a second or two: on a cluster they run where Snakemake does, without a queue's delay.
localrules:
    copy,
    advantage,
    best_so_far,
    best,
    evaluate,
    health,
    indexes,
    policies,
    tables,
    comparison,
    per_question,
    single_turn,
    collapse,
    time_by_phase,
    show_table,
    figures,
    report,
    card,
    track,


wildcard_constraints:
    arm=r"[A-Za-z][A-Za-z0-9_]*",
    seed=r"\d+",
    k=r"(?!000)\d{3}",
    kind="bm25|dense|rerank",
    shard=r"\d+",
