"""What a turn is worth: answer metrics, step rewards, advantages."""
