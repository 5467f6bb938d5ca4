"""The one error of this package."""


class CheckpointError(ValueError):
    """A folder is not what was asked of it. The message says what is wrong and what to do about it."""
