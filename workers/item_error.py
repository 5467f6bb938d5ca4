"""The error of one item; it does not affect the other items of the batch."""

from triptych.workers.shared.contract import Failure, FailureCode


class ItemError(Exception):
    """An item cannot be encoded. `code` and the message are sent to the router."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    def of_query(self) -> "ItemError":
        """The same error, of the item's query."""
        return ItemError(self.code, f"the query: {self}")

    def frame(self, index: int) -> Failure:
        """The frame for the item at `index` of the batch."""
        return Failure(index, self.code, str(self))
