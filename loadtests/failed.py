"""How the harness itself fails."""


class HarnessFailed(Exception):
    """The run has no result, for a reason that lies in the harness; the text says which."""
