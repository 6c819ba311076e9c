"""What the search server and its clients share."""
