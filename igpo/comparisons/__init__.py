"""The paper's tables and checks; each module is a command."""
