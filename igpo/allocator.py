"""What glibc's allocator is told, by the environment, of a process that runs a model."""

# Else it hands large tensors back to the kernel and faults every page in again: a fifth of a training step.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
