"""Indexes over one corpus, and the searcher that asks them."""
