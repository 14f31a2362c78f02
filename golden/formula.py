"""Numbers by formula: the same values in Python and in Go, with nothing stored.

A full-size golden has millions of inputs. Instead of shipping them, both sides
compute them from a 64-bit hash of the tensor's name and the flat index:

    hash(name, i)  = splitmix64(fnv1a64(name) + i mod 2^64)
    unit(name, i)  = (hash >> 11) * 2^-52 - 1          in [-1, 1), exact in double
    value(name, i) = float32(scale * unit + offset)    each operation rounded once
    label(i)       = hash("label", i) mod classes
    index(name, j) = hash("sample:" + name, j) mod size

The Go twin is runtime/formula; `python formula.py` prints the test vectors both
are held to (runtime/formula/testdata/vectors.json).
"""

import json

import numpy as np

MASK = (1 << 64) - 1


def fnv1a64(name: str) -> int:
    h = 0xCBF29CE484222325
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def hashes(name: str, n: int) -> np.ndarray:
    """hash(name, 0..n-1) as uint64 [n]."""
    z = np.arange(n, dtype=np.uint64) + np.uint64(fnv1a64(name))  # wraps mod 2^64
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def values(name: str, n: int, scale: float, offset: float) -> np.ndarray:
    """value(name, 0..n-1) as float32 [n]."""
    unit = (hashes(name, n) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    return (scale * unit + offset).astype(np.float32)


def labels(n: int, classes: int) -> np.ndarray:
    """label(0..n-1) as int64 [n]."""
    return (hashes("label", n) % np.uint64(classes)).astype(np.int64)


def indices(name: str, n: int, size: int) -> np.ndarray:
    """index(name, 0..n-1): the flat positions at which a tensor of `size` elements is sampled."""
    return (hashes("sample:" + name, n) % np.uint64(size)).astype(np.int64)


def vectors() -> dict:
    """Test vectors. Floats are written as hex so that no decimal printing stands between the two sides."""
    cases = [("image", 0.5, 0.5), ("blks.0.ln1.weight", 0.1, 1.0), ("pos_embedding", 3.0**0.5, 0.0),
             ("head.1.weight", 512**-0.5, 0.0), ("", 1.0, 0.0), ("größe", 1e-3, -2.0)]
    return {
        "hash": [{"name": n, "values": [f"{h:016x}" for h in hashes(n, 4).tolist()]} for n, _, _ in cases],
        "value": [{"name": n, "scale": s.hex(), "offset": o.hex(),
                   "values": [float(v).hex() for v in values(n, 5, s, o)]} for n, s, o in cases],
        "label": [{"classes": c, "values": labels(8, c).tolist()} for c in (2, 10, 1000)],
        "index": [{"name": n, "size": size, "values": indices(n, 6, size).tolist()}
                  for n, size in (("head.1.weight", 5120), ("cls_token", 7), ("blks.1.mlp.dense1.weight", 1 << 20))],
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1, ensure_ascii=False))
