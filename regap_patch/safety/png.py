"""PNG files whose bytes follow from their pixels alone, whatever zlib and Pillow are installed."""

from __future__ import annotations

import struct
import zlib

MAX_STORED = 65535  # bytes of a stored block of deflate


def png(width: int, height: int, pixels: bytes) -> bytes:
    """An RGB picture, stored without compression.

    Args:
        width: in pixels.
        height: in pixels.
        pixels: height x width x 3 bytes, row by row.
    """
    if len(pixels) != 3 * width * height:
        raise ValueError(f"{len(pixels)} bytes are no {width} x {height} RGB pixels.")
    row = 3 * width
    lines = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def plain_png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""
    return png(width, height, bytes(colour) * (width * height))


def _stored(data: bytes) -> bytes:
    """`data` as a zlib stream of stored blocks."""
    blocks = []
    for start in range(0, len(data), MAX_STORED):
        block = data[start : start + MAX_STORED]
        last = start + MAX_STORED >= len(data)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
