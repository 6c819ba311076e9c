"""A cross-encoder that orders the fused hits of a query anew, through sentence-transformers.

It stands beside the indexes as an index folder of kind `rerank`, whose manifest says which cross-encoder.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from retrieval.encoder.folder import UNREADABLE, encoder_folder, fingerprint


class Reranker:
    """A cross-encoder folder, loaded."""

    def __init__(self, folder: Path, sha256: str):
        """Load the folder; UserError if it is not the one with hash `sha256`, or no cross-encoder."""
        from sentence_transformers import CrossEncoder
        from transformers import AutoModelForSequenceClassification

        source = encoder_folder(str(folder))
        if fingerprint(source) != sha256:
            raise UserError(f"{folder}: not the cross-encoder that was chosen; run `retrieval index` again")
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=1, local_files_only=True, output_loading_info=True
            )
            self.model = CrossEncoder(str(source), num_labels=1, local_files_only=True)
        except UNREADABLE as error:
            raise UserError(f"{folder}: not a readable cross-encoder: {error}") from None
        if missing := sorted(info["missing_keys"]):  # would be drawn at random
            raise UserError(f"{folder}: not a whole cross-encoder: {missing[0]} is not among its weights")
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise UserError(f"{folder}: the cross-encoder's weights hold NaN or infinity")

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score for each text; they don't depend on what else is asked."""
        pairs = [(query, text) for text in texts]
        return [float(score) for score in self.model.predict(pairs, batch_size=32, show_progress_bar=False)]
