"""Register accesses gathered into requests: writes wait until something is read, or until they fill a request."""

from collections.abc import Sequence

from bpfnic.boards.session import Session
from bpfnic.spec.wire import ACCESSES, PAYLOAD_BYTES, REPLY_WORDS, Access

_WORDS = PAYLOAD_BYTES // 4
_READS = REPLY_WORDS
_FILL = 3
"""From so many equal words on, one word for all of them is shorter."""


class Batch:
    """Registers behind a session, written and read in the order of the calls. A write that the card refuses is an error
    of the call that sends it."""

    def __init__(self, session: Session):
        self._session = session
        self._writes: list[tuple[int, int]] = []

    def write(self, address: int, value: int) -> None:
        """Write a register, now or before the next read."""
        self._writes.append((address, value))
        if len(self._writes) >= ACCESSES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        self.read([])

    def read(self, addresses: Sequence[int]) -> list[int]:
        """Read registers, one behind the other, behind all writes."""
        writes, self._writes = self._writes, []
        values: list[int] = []
        for request in _requests([*_written(writes), *_read(addresses)]):
            values += self._session.request(request)
        return values


def _written(writes: Sequence[tuple[int, int]]) -> list[Access]:
    """Writes, in their order, in as few words as can be: runs of one value for a register, and others."""
    found: list[Access] = []
    run: list[int] = []  # of one register, among others of which there is no long run of one value
    at = 0

    def end_run() -> None:
        for start in range(0, len(run), _WORDS - 1):
            data = tuple(run[start : start + _WORDS - 1])
            found.append(Access(address, len(data), data))
        run.clear()

    while at < len(writes):
        address, value = writes[at]
        end = at
        while end < len(writes) and writes[end] == writes[at]:
            end += 1
        if end - at >= _FILL:
            end_run()
            found.append(Access(address, end - at, (value,)))
        else:
            run += [value] * (end - at)
        if end == len(writes) or writes[end][0] != address:
            end_run()
        at = end
    return found


def _read(addresses: Sequence[int]) -> list[Access]:
    """Reads, in their order: runs of one register, and of registers one behind the other."""
    found: list[Access] = []
    at = 0
    while at < len(addresses):
        step, end = 0, at + 1
        if end < len(addresses):
            step = addresses[end] - addresses[at]
        if step in (0, 4):
            while end < len(addresses) and addresses[end] == addresses[end - 1] + step and end - at < _READS:
                end += 1
        found.append(Access(addresses[at], end - at, advances=step == 4 and end - at > 1))
        at = end
    return found


def _requests(accesses: Sequence[Access]) -> list[list[Access]]:
    """Accesses by requests that each fit into a message, as do their replies."""
    requests: list[list[Access]] = []
    words = reads = count = 0
    for access in accesses:
        size, read = len(access.words()), 0 if access.data else access.count
        full = words + size > _WORDS or reads + read > _READS or count + access.count > ACCESSES
        if not requests or full:
            requests.append([])
            words = reads = count = 0
        requests[-1].append(access)
        words, reads, count = words + size, reads + read, count + access.count
    return requests
