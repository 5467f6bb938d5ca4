"""How busy and how late a process of the load tester is."""

import psutil

from triptych.loadtests.histogram import Counts, percentile
from triptych.loadtests.results import Process

SHARE = 0.99


class Monitor:
    """Observes this process and its machine, from when it is made. Only the newest one may be read.

    `late`: how late requests were sent.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        # The next calls measure from here.
        self._process.cpu_percent()
        psutil.cpu_percent()
        self.late: Counts = {}

    def read(self, name: str) -> Process:
        """The figures so far."""
        late = percentile(self.late, SHARE) if self.late else 0.0
        cpu, machine_cpu = self._process.cpu_percent() / 100, psutil.cpu_percent() / 100
        return Process(name=name, cpu=cpu, late=late, machine_cpu=machine_cpu)
