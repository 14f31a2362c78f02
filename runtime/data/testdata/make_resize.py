"""Writes resize.json: what Pillow's bilinear resize makes of small images.

python make_resize.py, in this folder, with Pillow 13 or newer installed: older
versions never take columns first (see ../resize.go).
"""
import json
import random

import PIL
from PIL import Image

SIZES = [  # input height, width -> output height, width
    (28, 28, 96, 96),
    (28, 28, 7, 7),
    (8, 8, 16, 16),
    (5, 7, 12, 3),
    (9, 4, 4, 9),
    (13, 13, 13, 5),
    (6, 11, 17, 11),
    (1, 1, 3, 2),
    (3, 1, 1, 4),
    (40, 33, 32, 32),
    (2, 2, 2, 2),
    (61, 37, 8, 30),  # 53 rows fewer, 7 columns: columns first
    (30, 25, 20, 20),  # 10 and 5: rows first, just
    (31, 25, 20, 20),  # 11 and 5: columns first, just
    (37, 61, 30, 8),
]

assert int(PIL.__version__.split(".")[0]) >= 13
rng = random.Random(1)
cases = []
for i, (h, w, oh, ow) in enumerate(SIZES):
    kind = i % 3
    if kind == 0:
        pixels = [rng.randrange(256) for _ in range(h * w)]
    elif kind == 1:
        pixels = [rng.choice((0, 255)) for _ in range(h * w)]
    else:
        pixels = [(37 * x + 91 * y) % 256 for y in range(h) for x in range(w)]
    image = Image.frombytes("L", (w, h), bytes(pixels))
    out = image.resize((ow, oh), Image.BILINEAR).tobytes()
    cases.append({"in": [h, w], "out": [oh, ow], "pixels": bytes(pixels).hex(), "want": out.hex()})

with open("resize.json", "w") as f:
    json.dump({"pillow": PIL.__version__, "cases": cases}, f, indent=1)
    f.write("\n")
