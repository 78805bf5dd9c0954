"""Results for people to look at: pages, text in a terminal, pictures."""
