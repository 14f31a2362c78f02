"""Writes pictures.json: small picture files of every kind that can be read, and
what Pillow makes of them.

python make_pictures.py, in this folder, with Pillow 13 or newer installed.

    rgb, gray   Image.open(file).convert("RGB" or "L"), row by row
    crop        torchvision's Resize(min) and CenterCrop of the RGB picture, or
                its generalization to the shapes that are not square
    stretch     Image.resize of the RGB picture
"""
import io
import json
import math
import random
import struct
import zlib

import PIL
from PIL import Image

from prepared import crop, text

assert int(PIL.__version__.split(".")[0]) >= 13
rng = random.Random(2)


def smooth(mode, w, h):
    """A picture with gradients, edges and some noise, as JPEG is made for."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = bytearray()
    for y in range(h):
        for x in range(w):
            for b in range(bands):
                v = 128 + 90 * math.sin((x * (b + 1) + 2 * y) / 7) + (40 if (x // 5 + y // 7) % 2 else -40)
                data.append(max(0, min(255, int(v) + rng.randrange(9))))
    return Image.frombytes(mode, (w, h), bytes(data))


def noise(mode, w, h):
    return Image.frombytes(mode, (w, h), rng.randbytes(w * h * len(Image.new(mode, (1, 1)).getbands())))


def file(image, kind, **options):
    f = io.BytesIO()
    image.save(f, kind, **options)
    return f.getvalue()


def png(w, h, depth, color, samples, extra=b""):
    """A PNG with any depth and kind of color, which Pillow cannot write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    n = len(samples) // h
    rows = b"".join(b"\0" + samples[y * n : (y + 1) * n] for y in range(h))
    head = struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def trns(data):
    return struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


def words(values):
    return struct.pack(f">{len(values)}H", *values)


def sampled(jpeg, w, h, factors):
    """A JPEG with other sampling factors of luma, which Pillow cannot write, as
    many blocks in each unit, and a size with as many units: of the same blocks,
    in other places."""
    at = jpeg.index(b"\xff\xc0") + 5
    assert jpeg[at + 5] == 1 and (factors >> 4) * (factors & 15) == (jpeg[at + 6] >> 4) * (jpeg[at + 6] & 15)
    return jpeg[:at] + struct.pack(">HHBBB", h, w, 3, 1, factors) + jpeg[at + 7 :]


palette = smooth("RGB", 12, 9).quantize(40)
transparent = palette.copy()
transparent.info["transparency"] = bytes(range(0, 200, 5))
grays16 = [0, 1, 127, 128, 254, 255, 256, 257, 300, 0x7FFF, 0x8000, 0xFF00, 0xFFFF, 0x1234, 77]

FILES = {
    "png gray": file(noise("L", 11, 7), "PNG"),
    "png gray with transparency": png(4, 2, 8, 0, bytes([0, 9, 100, 255, 7, 9, 9, 1]), trns(words([9]))),
    "png gray and alpha": file(noise("LA", 5, 6), "PNG"),
    "png rgb": file(noise("RGB", 13, 8), "PNG"),
    "png rgb with transparency": png(3, 1, 8, 2, bytes([1, 2, 3, 4, 5, 6, 200, 100, 50]), trns(words([4, 5, 6]))),
    "png rgba": file(noise("RGBA", 6, 9), "PNG"),
    "png palette": file(palette, "PNG"),
    "png palette with alpha": file(transparent, "PNG", transparency=transparent.info["transparency"]),
    "png palette of 4": file(smooth("RGB", 9, 5).quantize(4), "PNG"),
    "png 1 bit": file(noise("L", 19, 5).convert("1"), "PNG"),
    "png gray of 2 bits": png(5, 2, 2, 0, bytes([0b00011011, 0b01000000, 0b11100100, 0b10000000])),
    "png gray of 4 bits": png(4, 2, 4, 0, bytes([0x01, 0x7F, 0x8A, 0xE5])),
    "png gray of 16 bits": png(5, 3, 16, 0, words(grays16)),
    "png gray of 16 bits with transparency": png(5, 3, 16, 0, words(grays16), trns(words([255]))),
    "png gray and alpha of 16 bits": png(3, 1, 16, 4, words([0x1234, 9, 0xFFFF, 0, 0x00FF, 0x8000])),
    "png rgb of 16 bits": png(3, 2, 16, 2, words([rng.randrange(65536) for _ in range(18)])),
    "png rgba of 16 bits": png(3, 2, 16, 6, words([rng.randrange(65536) for _ in range(24)])),
    "jpeg gray": file(smooth("L", 33, 18), "JPEG", quality=90),
    "jpeg 4:4:4": file(smooth("RGB", 33, 21), "JPEG", quality=90, subsampling=0),
    "jpeg 4:2:2": file(smooth("RGB", 33, 21), "JPEG", quality=90, subsampling=1),
    "jpeg 4:2:0": file(smooth("RGB", 33, 21), "JPEG", quality=90, subsampling=2),
    "jpeg 4:2:0 of even size": file(smooth("RGB", 48, 34), "JPEG", quality=75, subsampling=2),
    "jpeg 4:2:0, 3 wide": file(smooth("RGB", 3, 5), "JPEG", quality=90, subsampling=2),
    "jpeg 4:2:0, 5 wide": file(smooth("RGB", 5, 3), "JPEG", quality=90, subsampling=2),
    "jpeg 4:2:0, 1 pixel": file(smooth("RGB", 1, 1), "JPEG", quality=90, subsampling=2),
    "jpeg progressive": file(smooth("RGB", 35, 26), "JPEG", quality=90, progressive=True),
    "jpeg cmyk": file(smooth("CMYK", 24, 17), "JPEG", quality=95),
    "jpeg rgb": file(smooth("RGB", 17, 20), "JPEG", quality=90, keep_rgb=True),
    "jpeg 4:4:0": sampled(file(smooth("RGB", 32, 16), "JPEG", quality=90, subsampling=1), 16, 32, 0x12),
    "jpeg 4:1:1": sampled(file(smooth("RGB", 32, 32), "JPEG", quality=90, subsampling=2), 64, 16, 0x41),
    "jpeg turned by exif": file(smooth("RGB", 20, 12), "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}
FITTED = {  # height, width wanted
    "png rgb": (6, 6),
    "png rgba": (4, 5),
    "png palette": (20, 17),
    "jpeg 4:2:0": (16, 16),
    "jpeg cmyk": (9, 14),
}


cases = []
for name, data in FILES.items():
    rgb = Image.open(io.BytesIO(data)).convert("RGB")
    case = {
        "name": name,
        "file": text(data),
        "size": [rgb.height, rgb.width],
        "rgb": text(rgb.tobytes()),
        "gray": text(Image.open(io.BytesIO(data)).convert("L").tobytes()),
    }
    if name in FITTED:
        h, w = case["fit"] = FITTED[name]
        case["crop"] = text(crop(rgb, h, w).tobytes())
        case["stretch"] = text(rgb.resize((w, h), Image.BILINEAR).tobytes())
    cases.append(case)

with open("pictures.json", "w") as f:
    json.dump({"pillow": PIL.__version__, "cases": cases}, f, indent=1)
    f.write("\n")
