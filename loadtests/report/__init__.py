"""The report on a run: an HTML page and text for the terminal."""
