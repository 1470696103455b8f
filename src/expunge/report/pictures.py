"""Pictures of a record as the page shows them: PNG files inside it."""

from __future__ import annotations

import base64
import struct
import zlib

from expunge.core.record import PictureRecord


def png(picture: PictureRecord) -> str:
    """Return a picture as the address of a PNG file that holds it."""
    stride = picture.width * picture.channels
    raw = base64.b64decode(picture.pixels)
    lines = b"".join(b"\0" + raw[row * stride : (row + 1) * stride] for row in range(picture.height))
    colour = 2 if picture.channels == 3 else 0
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()
