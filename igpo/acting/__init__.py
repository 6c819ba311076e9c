"""The agent and the engine that samples its turns."""
