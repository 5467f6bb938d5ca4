"""The import package: links to the folders beside it, so that an installed wheel takes one name only."""
