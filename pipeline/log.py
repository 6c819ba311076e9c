"""The log of every stage."""

import logging

log = logging.getLogger("pipeline")
