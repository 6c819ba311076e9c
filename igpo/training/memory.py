"""Time or memory: what glibc's allocator is told in a process that runs a model."""

import ctypes
import sys
from typing import Any

# In the environment. Else it hands large tensors back to the kernel, which takes a fifth of a training step:
# every page is faulted in again.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
M_MMAP_THRESHOLD, M_MMAP_MAX = -3, -4  # as in malloc.h


def save_memory(model: Any) -> None:
    """Have the model's layers computed again instead of kept, and tensors above 2 MB handed back when freed.

    With `MALLOC` fragments of freed tensors take as much again as those in use.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 65536)
        libc.mallopt(M_MMAP_THRESHOLD, 2 << 20)
