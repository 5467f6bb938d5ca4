"""The error of one item; it does not affect the other items of the batch."""

from triptych.workers.shared.contract import Failure, FailureCode


class ItemError(Exception):
    """An item cannot be encoded. `code`, the message and whether its query is to blame go to the router."""

    def __init__(self, code: FailureCode, message: str, *, query: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.query = query

    def of_query(self) -> "ItemError":
        return ItemError(self.code, str(self), query=True)

    def frame(self, index: int) -> Failure:
        return Failure(index, self.code, str(self), self.query)
