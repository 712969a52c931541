"""SipHash-2-4: a hash of bytes under a key, by its paper (Aumasson and Bernstein, 2012)."""

_MASK = (1 << 64) - 1
_CONSTANTS = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def siphash(key: bytes, message: bytes) -> int:
    """64 bits. `key`: 16 bytes."""
    words = [int.from_bytes(key[i % 2 * 8 :][:8], "little") for i in range(4)]
    v0, v1, v2, v3 = (word ^ constant for word, constant in zip(words, _CONSTANTS, strict=True))

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0, v2 = v0 + v1 & _MASK, v2 + v3 & _MASK
            v1, v3 = _rotated(v1, 13) ^ v0, _rotated(v3, 16) ^ v2
            v0 = _rotated(v0, 32)
            v2, v0 = v2 + v1 & _MASK, v0 + v3 & _MASK
            v1, v3 = _rotated(v1, 17) ^ v2, _rotated(v3, 21) ^ v0
            v2 = _rotated(v2, 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return v0 ^ v1 ^ v2 ^ v3


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 64 - by) & _MASK
