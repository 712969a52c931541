"""Links to a card, by what stands behind `board:`."""

import time
from collections import deque

import serial

from bpfnic.boards.messages import Unslip, slip
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import MESSAGE_BYTES

_BITS = 10  # of a byte on the line
_LATENCY = 0.1  # s: a USB adapter's, the operating system's, and the longest request's own, with room


class SerialLink:
    """A UART (session.Link). Raises BpfnicError where `path` is no serial line that can be used.

    baud : bits a second. patience : seconds; None for what the longest messages take on the line, and some."""

    def __init__(self, path: str, baud: int, patience: float | None = None):
        self.name = path
        self.patience = patience or 2 * MESSAGE_BYTES * _BITS / baud + _LATENCY
        self._unslip, self._messages = Unslip(), deque[bytes]()
        try:
            self._line = serial.Serial(path, baud, timeout=0)
        except (serial.SerialException, ValueError, OSError) as error:
            raise BpfnicError(f"{path}: {_reason(error)}") from None

    def send(self, message: bytes) -> None:
        try:
            self._line.write(slip(message))
        except (serial.SerialException, OSError) as error:
            raise BpfnicError(f"{self.name}: {_reason(error)}") from None

    def receive(self, seconds: float) -> bytes | None:
        end = time.monotonic() + seconds
        while not self._messages and (left := end - time.monotonic()) > 0:
            try:
                self._line.timeout = left
                data = self._line.read(max(1, self._line.in_waiting))
            except (serial.SerialException, OSError) as error:
                raise BpfnicError(f"{self.name}: {_reason(error)}") from None
            self._messages.extend(self._unslip.feed(data))
        return self._messages.popleft() if self._messages else None

    def close(self) -> None:
        self._line.close()


def _reason(error: Exception) -> str:
    """In a few words: pyserial wraps the operating system's error."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    number = getattr(cause, "strerror", None)
    return number or str(error)
