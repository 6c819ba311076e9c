"""Forms of corpora, Wikipedia dumps, ids of passages."""
