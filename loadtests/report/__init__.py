"""What is written about a run: a page, and a text for the terminal."""
