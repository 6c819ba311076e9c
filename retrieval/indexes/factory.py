"""`index.faiss` -> an empty FAISS index: a factory string, then search parameters as `name=number`.

What can't be built over a corpus is refused here, before its passages are encoded.
"""

import re
from typing import Any

import faiss

from pipeline.errors import UserError

TRAINING_ROWS = 200_000  # vectors that IVF and PQ learn from at least, if there are so many
ROWS_A_LIST = 39  # below which FAISS calls its centroids poor
OPQ_ROWS = 256  # that an OPQ rotation needs: the centroids of 8 bits


def plain(error: Exception) -> str:
    """What FAISS says, without its place in FAISS's source."""
    return re.sub(r"^Error in .*?\.cpp:\d+: ", "", str(error))


def least_rows(index: faiss.Index) -> int:
    """How many vectors an empty index has to learn from; 0 for one that learns nothing."""
    index = faiss.downcast_index(index)
    counts = [getattr(index, "nlist", 0), index.pq.ksub if hasattr(index, "pq") else 0]
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain  # declared as a list, but a C++ vector
        steps = [faiss.downcast_VectorTransform(chain.at(at)) for at in range(chain.size())]
        counts += [OPQ_ROWS for step in steps if isinstance(step, faiss.OPQMatrix)]
        counts += [step.d_out for step in steps if isinstance(step, faiss.PCAMatrix)]
    inner = ("index", "base_index", "storage")
    return max(*counts, *(least_rows(getattr(index, name)) for name in inner if hasattr(index, name)), 0)


def training_step(index: faiss.Index, rows: int) -> int:
    """Every how many of all rows an empty index learns from one."""
    return max(rows // max(TRAINING_ROWS, ROWS_A_LIST * least_rows(index)), 1)


def set_parameter(index: faiss.Index, parameter: str, form: str) -> None:
    """Set a search parameter, which the index's file keeps; UserError for one that the index doesn't have."""
    name, _, value = parameter.partition("=")
    try:
        if not re.fullmatch(r"[1-9]\d{0,8}", value):
            raise RuntimeError
        faiss.ParameterSpace().set_index_parameter(index, name, int(value))
    except RuntimeError:
        raise UserError(
            f"params: index.faiss: {form!r} has no search parameter {parameter!r}; "
            "expected such as nprobe=32 (IVF) or efSearch=128 (HNSW), a whole number above 0"
        ) from None


def blank_index(spec: str, dimension: int, rows: int) -> faiss.Index:
    """An empty inner-product index for so many vectors.

    Raises UserError for what FAISS does not know, and for an index that needs more vectors or other ones.
    """
    form, *parameters = spec.split() or [""]
    where = f"params: index.faiss: {form!r}"
    if re.search(r"IVF0+\b|HNSW[01]\b|IDMap", form):  # FAISS finds out late, or ends the process
        raise UserError(f"{where}: can't be built: give lists from IVF1, links from HNSW2, and no IDMap")
    try:
        index = faiss.index_factory(dimension, form, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"{where} does not fit vectors of {dimension} numbers: {plain(error)}") from None
    least = least_rows(index)
    if rows < least:
        raise UserError(
            f"{where} learns from {least} vectors or more, here are {rows}; give fewer lists or bits, or Flat"
        )
    for parameter in parameters:
        set_parameter(index, parameter, form)
    return index
