"""Token trees: many sequences with shared beginnings in one forward pass."""
