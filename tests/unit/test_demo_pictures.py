"""Uploads, good and bad: the right picture, or a sentence."""

from __future__ import annotations

import contextlib
import random
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from PIL import Image

from regap_patch.demo import pictures
from regap_patch.demo.pictures import checked, read_upload
from regap_patch.errors import DemoError

QUARTERS = {(0, 0): (250, 10, 10), (1, 0): (10, 250, 10), (0, 1): (10, 10, 250), (1, 1): (240, 240, 10)}


def quarters(width: int = 40, height: int = 24) -> Image.Image:
    """Red, green / blue, yellow: every turn and flip of it is another picture."""
    image = Image.new("RGB", (width, height))
    for (x, y), colour in QUARTERS.items():
        image.paste(colour, (x * width // 2, y * height // 2, (x + 1) * width // 2, (y + 1) * height // 2))
    return image


def saved(image: Image.Image, kind: str, **options) -> bytes:
    written = BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def corners(data: bytes) -> dict:
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        at = {
            (x, y): (image.width // 4 + x * image.width // 2, image.height // 4 + y * image.height // 2)
            for x in (0, 1)
            for y in (0, 1)
        }
        return {place: image.getpixel(pixel) for place, pixel in at.items()}


def near(found: dict, tolerance: int) -> bool:
    return all(
        abs(one - other) <= tolerance
        for place, colour in QUARTERS.items()
        for one, other in zip(found[place], colour, strict=True)
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (saved(quarters(), "PNG"), 0),
        (saved(quarters(), "BMP"), 0),
        (saved(quarters(), "GIF"), 8),
        (saved(quarters(), "JPEG", quality=95), 30),
        (saved(quarters().convert("CMYK"), "JPEG", quality=95), 30),
        (saved(quarters(), "WEBP", lossless=True), 0),
    ],
    ids=["png", "bmp", "gif", "jpeg", "cmyk", "webp"],
)
def test_the_right_picture(data, tolerance):
    picture = checked(data)
    assert (picture.width, picture.height) == (40, 24)
    assert near(corners(picture.png), tolerance)
    assert picture.changed == ""
    assert checked(picture.png) == picture


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photograph_stands_upright(orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored so; shown turned by 90 degrees clockwise
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters().transpose(turns[orientation])
    picture = checked(saved(stored, "JPEG", quality=95, exif=exif))
    assert (picture.width, picture.height) == (40, 24)
    assert near(corners(picture.png), 30)
    assert "EXIF" in picture.changed


def test_what_is_transparent_lies_on_white():
    image = quarters().convert("RGBA")
    image.putalpha(0)
    picture = checked(saved(image, "PNG"))
    assert set(corners(picture.png).values()) == {(255, 255, 255)}
    assert "white" in picture.changed


def test_a_large_one_is_scaled_and_keeps_its_shape():
    picture = checked(saved(quarters(4096, 1024), "PNG"))
    assert (picture.width, picture.height) == (2048, 512)
    assert near(corners(picture.png), 0)
    assert "4096 x 1024" in picture.changed


def test_nothing_of_camera_and_place_is_left():
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    assert b"a camera" not in checked(saved(quarters(), "JPEG", exif=exif)).png
    assert checked(saved(quarters(), "PNG", exif=exif, icc_profile=b"profile")) == checked(
        saved(quarters(), "PNG")
    )


FRAMES = [quarters(), quarters().rotate(180)]
MOVES = {"save_all": True, "append_images": FRAMES[1:], "duration": 50}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bytes"),
        (b"this is text", "does not open"),
        (b"\x89PNG\r\n\x1a\n but no more", "does not open"),
        (saved(quarters(), "PNG")[:-40], "does not open"),
        (saved(quarters(), "JPEG")[:200], "does not open"),
        (saved(quarters(), "TIFF"), "does not open"),
        (png_header(10_000, 10_000), "10000 x 10000 pixels"),
        (png_header(20_000, 20_000), "more than 178 million pixels"),
        (saved(FRAMES[0], "GIF", **MOVES), "moves (2 frames)"),
        (saved(FRAMES[0], "WEBP", **MOVES), "moves (2 frames)"),
        (saved(FRAMES[0], "PNG", **MOVES), "moves (2 frames)"),
        (saved(Image.new("I;16", (8, 8), 40_000), "PNG"), "8 bits"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "does not open"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_sentence(data, says):
    with pytest.raises(DemoError) as refused:
        checked(data)
    sentence = str(refused.value)
    assert says in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_not_unpacked(monkeypatch):
    def never(self):
        raise AssertionError("unpacked")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    with pytest.raises(DemoError, match="pixels"):
        checked(png_header(10_000, 10_000))


def test_one_is_unpacked_at_a_time(monkeypatch):
    """A small file may hold 40 million pixels, and many may come at once."""
    inside, most, convert = [], [], pictures._as_png

    def watched(opened):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.1)
        inside.pop()
        return convert(opened)

    monkeypatch.setattr(pictures, "_as_png", watched)
    data = saved(quarters(), "PNG")
    with ThreadPoolExecutor(4) as pool:
        assert len({picture.png for picture in pool.map(checked, [data] * 4)}) == 1
    assert most == [1, 1, 1, 1]


def test_torn_bytes_of_every_kind_end_in_a_sentence():
    draw = random.Random(0)
    whole = [saved(quarters(), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP")]
    for _ in range(300):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 12)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        with contextlib.suppress(DemoError):
            assert checked(bytes(data)).png


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BYTES", 1 << 20)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(3 << 20)
    with pytest.raises(DemoError, match=r"3 MiB, and 1 are taken"):
        read_upload(large)
    with pytest.raises(DemoError, match="upload it again"):
        read_upload(tmp_path / "gone.png")
