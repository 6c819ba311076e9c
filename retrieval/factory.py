"""`index.faiss` -> an empty FAISS index: a factory string, then search parameters as `name=number`."""

import re

import faiss

from retrieval.stage import UserError


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


def blank_index(given: str, dimension: int) -> faiss.Index:
    """An empty inner-product index; UserError for a form or a search parameter that FAISS does not know."""
    form, *parameters = given.split() or [""]
    try:
        index = faiss.index_factory(dimension, form, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(f"params: index.faiss: {form!r} does not fit: {error}") from None
    for parameter in parameters:
        set_parameter(index, parameter, form)
    return index
