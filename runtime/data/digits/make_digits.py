"""Writes the two embedded IDX files from the copy of the UCI digits that ships
with scikit-learn: python make_digits.py, in this folder. Same input, same bytes.
"""
import gzip
import struct

import numpy as np
from sklearn.datasets import load_digits


def write(path, magic, array):
    header = struct.pack(">I", magic) + b"".join(struct.pack(">I", n) for n in array.shape)
    with open(path, "wb") as f:
        f.write(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


digits = load_digits()
images = digits.images
assert images.shape == (1797, 8, 8) and images.min() == 0 and images.max() == 16
assert (images == np.floor(images)).all()
write("images-idx3-ubyte.gz", 0x00000803, images.astype(np.uint8))
write("labels-idx1-ubyte.gz", 0x00000801, digits.target.astype(np.uint8))
