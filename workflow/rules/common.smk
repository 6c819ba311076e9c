# What every rule uses: the checked parameters, a stage's section of them, a digest of its code, paths.
import ast
import hashlib
import json

ROOT = Path(workflow.basedir)
# Stages run as modules with this interpreter, whatever --directory or an inactive environment says.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from retrieval.stage import UserError, apply_arm, merge, numbers, read_params
from retrieval.stage import check as check_params


def checked(params):
    """`params`, once every section and arm is right and `run` names known arms.

    An arm's keys obey the schema of the section that it is laid over, so the merged sections do too.
    """
    check_params(params)
    for name in params["run"]["arms"] + params["run"]["baselines"]:
        apply_arm(params, name)
    return params


# `config` holds what --configfile and --config gave. One line and exit code 2 for what a user can mend;
# os._exit, since Snakemake would wrap SystemExit of an included file in a traceback.
try:
    config.update(checked(merge(read_params([ROOT / "params.yaml"]), numbers(config))))
except UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)

ARMS = {name: apply_arm(config, name) for name in config["arms"]}
RUN = config["run"]
KINDS = config["index"]["kinds"]
# Snakemake sets OMP_NUM_THREADS to a rule's threads: a model stage takes its GPU's share of the cores.
# Without --cores (on a cluster) set-threads in the profile says how many.
LIMITS = {
    name: getattr(workflow.global_resources.get(name), "value", None)
    for name in ("_cores", "gpu")
}
MODEL_THREADS = max(1, (LIMITS["_cores"] or 1) // (LIMITS["gpu"] or 1))


def section(name, arm=None, **over):
    """One stage's parameters as JSON: what the stage reads, and what triggers its rerun."""
    params = ARMS[arm] if arm else config
    return json.dumps(merge(params[name], over), sort_keys=True)


def arm_section(name):
    """The section `name` with the arm of the wildcards laid over it."""
    return lambda wildcards: section(name, wildcards.arm)


def source_file(name):
    """The file or the files of a folder that a section's `source` names; none for an embedded source."""
    path = Path(config[name]["source"])
    return (
        sorted(map(str, path.iterdir()))
        if path.is_dir()
        else [str(path)] if path.exists() else []
    )


def module_path(name):
    """The file of module or package `name` in this repository, or None."""
    path = ROOT.joinpath(*name.split("."))
    return next(
        (
            file
            for file in (path.with_suffix(".py"), path / "__init__.py")
            if file.exists()
        ),
        None,
    )


def imports(tree):
    """Names of the modules that a syntax tree imports, packages of theirs included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def without_docstrings(tree):
    """The syntax tree less what only a reader sees."""
    for node in ast.walk(tree):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef)
        ) and ast.get_docstring(node):
            node.body = node.body[1:]
    return tree


def code(module):
    """Digest of a stage module and of its local imports; comments, docstrings and layout don't count."""
    todo, trees = [module], {}
    while todo:
        path = module_path(todo.pop())
        if path and path not in trees:
            trees[path] = without_docstrings(ast.parse(path.read_text()))
            todo += imports(trees[path])
    if not trees:
        raise ValueError(f"no module {module} under {ROOT}")
    dumps = (
        f"{path.relative_to(ROOT)}{ast.dump(trees[path])}" for path in sorted(trees)
    )
    return hashlib.sha256("".join(dumps).encode()).hexdigest()[:12]


wildcard_constraints:
    arm=r"[A-Za-z][A-Za-z0-9_]*",
    seed=r"\d+",
    k=r"(?!000)\d{3}",
    kind="bm25|dense",
