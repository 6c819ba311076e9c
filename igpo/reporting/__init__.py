"""Numbers of finished runs, and their form for a reader."""
