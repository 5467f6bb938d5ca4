"""DNS discovery: the workers that SRV records name, such as the pods of a headless Kubernetes Service."""

import asyncio
from collections.abc import Sequence

import aiodns
import pycares
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, DNSError

from triptych.router.pool.targets import TargetGroup

# Timeout of one question to one name server, and how often it is asked.
QUESTION_SECONDS = 2.0
TRIES = 2
NO_RECORD = (ARES_ENODATA, ARES_ENOTFOUND)


class SrvRecords:
    """Adds the workers of SRV records to the target groups that have the label `srv`.

    If a name cannot be resolved or has no record, its last workers stay. A group with the label
    `min_replicas` "0" may lose all of them.
    """

    def __init__(self, nameservers: Sequence[str] | None = None) -> None:
        self._nameservers = nameservers
        self._resolver: aiodns.DNSResolver | None = None
        self._last: dict[str, tuple[str, ...]] = {}

    async def add_to(self, groups: Sequence[TargetGroup]) -> tuple[tuple[TargetGroup, ...], str | None]:
        """`groups` with the workers of their records, and what went wrong, None if nothing did."""
        troubles = await asyncio.gather(*map(self._look_up, groups))
        listed = {target for group in groups for target in group.targets}
        filled = []
        for group in groups:
            found = [target for target in self._last.get(group.labels.srv or "", ()) if target not in listed]
            listed.update(found)
            filled.append(group.model_copy(update={"targets": (*group.targets, *found)}))
        names = {group.labels.srv for group in groups}
        self._last = {name: found for name, found in self._last.items() if name in names}
        return tuple(filled), "; ".join(filter(None, troubles)) or None

    async def close(self) -> None:
        """Cancel questions in progress."""
        if self._resolver is not None:
            await self._resolver.close()

    async def _look_up(self, group: TargetGroup) -> str | None:
        """Ask for the records of `group`, if it names any. Returns what went wrong."""
        name = group.labels.srv
        if name is None:
            return None
        try:
            self._last[name] = await self._ask(name)
        except DNSError as error:
            code, reason = error.args
            if code not in NO_RECORD or group.labels.min_replicas != "0":
                return f"SRV records of {name}: {reason}"
            self._last[name] = ()
        return None

    async def _ask(self, name: str) -> tuple[str, ...]:
        if self._resolver is None:
            # Made here, because it belongs to the running event loop.
            self._resolver = aiodns.DNSResolver(self._nameservers, timeout=QUESTION_SECONDS, tries=TRIES)
        found = await self._resolver.query_dns(name, "SRV")
        # An answer may also hold the CNAME records that led to it.
        data = [one.data for one in found.answer if isinstance(one.data, pycares.SRVRecordData)]
        # A record with the target "." says that there is no service (RFC 2782).
        records = [record for record in data if record.target.rstrip(".") and record.port]
        if not records:
            raise DNSError(ARES_ENODATA, "no SRV record")
        return tuple(sorted(f"{record.target.rstrip('.')}:{record.port}" for record in records))
