"""An uploaded picture, before anything else sees it: small enough, whole, upright, RGB; or a sentence.

What comes out is what is shown, exported and given to the models, all three the same bytes.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from regap_patch.errors import DemoError

MOST_BYTES = 10 << 20
MOST_PIXELS = 40_000_000  # told by the header, before a pixel is unpacked
LONGEST_SIDE = 2048  # what is longer is scaled down: towers see 336 to some 1000 pixels
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOVING = ("PNG", "WEBP", "GIF")  # a JPEG of several pictures is a photograph with its preview
ORIENTATION, TURNED = 0x0112, range(2, 9)  # of EXIF; 1 is upright
_TURN = threading.Lock()  # 40 million pixels take half a gigabyte while they are looked at
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is safe to show and to give to a model.

    Attributes:
        png: its bytes.
        width: in pixels.
        height: in pixels.
        changed: what was done to it, in words; "" for nothing.
    """

    png: bytes
    width: int
    height: int
    changed: str = ""

    @property
    def sha256(self) -> str:
        """Of the bytes."""
        return hashlib.sha256(self.png).hexdigest()


def read_upload(path: str | Path) -> Picture:
    """The picture in an uploaded file.

    Raises:
        DemoError: it is none that we show.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise DemoError(
            f"The picture is not there any more ({type(error).__name__}): upload it again."
        ) from error
    if size > MOST_BYTES:
        raise DemoError(
            f"The picture has {size / (1 << 20):.0f} MiB, and {MOST_BYTES >> 20} are taken: save it smaller."
        )
    return checked(data)


def checked(data: bytes) -> Picture:
    """A picture file's content as a PNG in RGB.

    Raises:
        DemoError: it is empty, of another format, too large, moving, or does not unpack.
    """
    from PIL import Image

    if not data:
        raise DemoError("The picture has no bytes: upload it again.")
    try:
        with _TURN, Image.open(BytesIO(data), formats=FORMATS) as opened:
            _check_header(opened)
            opened.load()
            return _as_png(opened)
    except DemoError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large("more than 178 million") from error
    except Exception as error:  # what hostile bytes make a decoder raise is of every kind
        raise DemoError(
            f"The file does not open as a picture ({type(error).__name__}): upload a whole "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        ) from error


def _check_header(opened: Any) -> None:
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise _too_large(f"{width} x {height}")
    if opened.format in MOVING and getattr(opened, "is_animated", False):
        raise DemoError(
            f"The {opened.format} moves ({opened.n_frames} frames), and a model is shown one picture: save "
            f"one frame of it."
        )
    if opened.mode not in MODES:
        raise DemoError(
            f"The picture's pixels are of kind {opened.mode}, which has no plain conversion to RGB: save it "
            f"with 8 bits a channel."
        )


def _too_large(pixels: str) -> DemoError:
    return DemoError(
        f"The picture has {pixels} pixels, and {MOST_PIXELS // 1_000_000} million are taken: save it smaller."
    )


def _as_png(opened: Any) -> Picture:
    from PIL import Image, ImageOps

    changes = []
    if opened.getexif().get(ORIENTATION) in TURNED:
        ImageOps.exif_transpose(opened, in_place=True)
        changes.append("turned as its EXIF says")
    if opened.has_transparency_data:
        clear = opened.convert("RGBA")
        plain = Image.new("RGB", opened.size, "white")
        plain.paste(clear, mask=clear)
        changes.append("laid on white")
    else:
        plain = opened.convert("RGB")
    if max(plain.size) > LONGEST_SIDE:
        changes.append(f"scaled down from {plain.width} x {plain.height}")
        plain.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    written = BytesIO()
    pixels = Image.frombytes("RGB", plain.size, plain.tobytes())  # and nothing else: no place, no camera
    pixels.save(written, "PNG")
    return Picture(written.getvalue(), *plain.size, ", ".join(changes))
