"""A worker's service without an engine, for tests to build upon."""

from tests.fakes.worker import FakeWorker, vector_of
from workers.encoding import Job
from workers.shared.contract import EncodeRequest, Failure, Frame, Item


class FakeService:
    """Encodes every item at once by `encode`, which tests override. `steps` counts what was encoded."""

    info = FakeWorker().info
    tolerance = 0.005

    def __init__(self) -> None:
        self.dead = False
        self.busy = False
        self.steps = 0
        self.canaries: dict[str, EncodeRequest] = {}

    async def jobs(self, request: EncodeRequest) -> list[Job | Failure]:
        return [self.job(index, item) for index, item in enumerate(request.items)]

    def job(self, index: int, item: Item) -> Job | Failure:
        return lambda: self.encode(item)

    async def encode(self, item: Item) -> Frame:
        self.steps += 1
        return vector_of("retrieval", item, 8)

    async def warm_up(self) -> None: ...
    def shutdown(self) -> None: ...
