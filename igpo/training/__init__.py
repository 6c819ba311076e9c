"""The update: loss, optimiser state, memory, several processes."""
