"""Information-gain policy optimisation of search agents, as a pipeline of files."""

import gc

import pipeline as pipeline  # its import switches every network call off

# The imports of a stage make many objects that last: it starts a second earlier.
gc.set_threshold(100_000, 50, 50)
