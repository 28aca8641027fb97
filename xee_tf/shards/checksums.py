"""The CRC-32C of bytes that are put together, from the CRC-32C of the pieces."""

from __future__ import annotations

__all__ = ["join_crcs"]

_POLYNOMIAL = 0x82F63B78  # of CRC-32C; the highest bit of a number is the coefficient of x**0
_ONE = 1 << 31


def join_crcs(first: int, second: int, length: int) -> int:
    """The CRC-32C of two pieces, one after the other; the second one has `length` bytes.

    Examples
    --------
    >>> from crc32c import crc32c
    >>> join_crcs(crc32c(b"head"), crc32c(b"body"), 4) == crc32c(b"headbody")
    True
    """
    shift, power = _ONE, _ONE >> 8  # x**8: the first piece moves up by a byte
    while length:
        if length & 1:
            shift = _product(shift, power)
        power = _product(power, power)
        length >>= 1
    return _product(shift, first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo that of CRC-32C."""
    product, bit = 0, _ONE
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
        bit >>= 1
    return product
