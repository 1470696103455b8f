"""Pictures of a record as the page shows them: PNG files inside it."""

from __future__ import annotations

import base64
import io

from PIL import Image

from expunge.core.record import PictureRecord


def png(picture: PictureRecord) -> str:
    """Return a picture as the address of a PNG file that holds it."""
    size = (picture.width, picture.height)
    content = io.BytesIO()
    mode = "RGB" if picture.channels == 3 else "L"
    Image.frombytes(mode, size, base64.b64decode(picture.pixels)).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
