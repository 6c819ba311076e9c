"""What a finished run gives away: cards and archives."""
