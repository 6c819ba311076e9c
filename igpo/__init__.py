"""Information-gain policy optimisation of search agents, as a pipeline of files."""

import retrieval as retrieval  # its import switches every network call off
