"""Runs and trajectories in MLflow."""
