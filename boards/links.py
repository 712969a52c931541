"""Links to a card, by what stands behind `board:`."""

import socket
import time
from collections import deque

import serial

from bpfnic.boards.messages import Unslip, ethernet, from_ethernet, slip
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import ETHERTYPE, MESSAGE_BYTES

_BITS = 10  # of a byte on the line
_LATENCY = 0.1  # s: a USB adapter's, the operating system's, and the longest request's own, with room


def interfaces() -> list[str]:
    """Names of this machine's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


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


class EthernetLink:
    """An Ethernet interface of this machine, a packet socket (session.Link). Raises BpfnicError where it can't be used.

    card : the card's address. patience : seconds; None for what an Ethernet between them takes, and some."""

    def __init__(self, interface: str, card: bytes, patience: float | None = None):
        self.name, self.patience = interface, patience or _LATENCY
        self._card = card
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
            self._socket.bind((interface, ETHERTYPE))
        except AttributeError:
            raise BpfnicError(f"{interface}: this operating system has no packet sockets") from None
        except OSError as error:
            raise BpfnicError(f"{interface}: {error.strerror}") from None
        self._own = self._socket.getsockname()[4]

    def send(self, message: bytes) -> None:
        try:
            self._socket.send(ethernet(message, self._card, self._own))
        except OSError as error:
            raise BpfnicError(f"{self.name}: {error.strerror}") from None

    def receive(self, seconds: float) -> bytes | None:
        self._socket.settimeout(max(seconds, 1e-6))
        try:
            return from_ethernet(self._socket.recv(2 * MESSAGE_BYTES))
        except TimeoutError:
            return None
        except OSError as error:
            raise BpfnicError(f"{self.name}: {error.strerror}") from None

    def close(self) -> None:
        self._socket.close()


def _reason(error: Exception) -> str:
    """In a few words: pyserial wraps the operating system's error."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    number = getattr(cause, "strerror", None)
    return number or str(error)
