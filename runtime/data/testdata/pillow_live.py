"""Makes random pictures and what Pillow makes of them, for TestLivePillow.

python pillow_live.py SEED COUNT writes one JSON object a line: a file (base64),
the shape wanted, and the pixels that crop and stretch give, RGB or L, as
make_pictures.py has them.
"""
import io
import json
import random
import sys

from PIL import Image

from prepared import crop, text

rng = random.Random(int(sys.argv[1]))


def smooth(mode, w, h):
    """Blobs of color, as JPEG is made for, of any size."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    small = Image.frombytes(mode, (4, 4), rng.randbytes(16 * bands))
    return small.resize((w, h), Image.BICUBIC)


for i in range(int(sys.argv[2])):
    w, h = rng.randint(1, 150), rng.randint(1, 150)
    f = io.BytesIO()
    if i % 3 == 0:
        kind = "jpeg"
        mode = rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"])
        options = {"subsampling": rng.randrange(3)} if mode == "RGB" else {}
        smooth(mode, w, h).save(f, "JPEG", quality=rng.randint(60, 98), progressive=rng.random() < 0.3, **options)
    else:
        kind = "png"
        mode = rng.choice(["RGB", "RGBA", "L", "LA"])
        Image.frombytes(mode, (w, h), rng.randbytes(w * h * len(Image.new(mode, (1, 1)).getbands()))).save(f, "PNG", compress_level=1)
    oh, ow = rng.randint(1, 80), rng.randint(1, 80)
    if i % 4 == 0:
        ow = oh
    channels = rng.choice([1, 3])
    image = Image.open(io.BytesIO(f.getvalue())).convert("RGB" if channels == 3 else "L")
    left, top = rng.randrange(w), rng.randrange(h)
    box = [top, left, rng.randint(1, h - top), rng.randint(1, w - left)]
    part = image.crop((left, top, left + box[3], top + box[2])).resize((ow, oh), Image.BILINEAR)
    print(json.dumps({
        "name": f"{kind} {mode} {h}×{w} to {channels}×{oh}×{ow}", "file": text(f.getvalue()),
        "shape": [channels, oh, ow], "box": box,
        "crop": text(crop(image, oh, ow).tobytes()),
        "stretch": text(image.resize((ow, oh), Image.BILINEAR).tobytes()),
        "part": text(part.tobytes()),
    }))
