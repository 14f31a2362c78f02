"""Writes positions.json: what PyTorch makes of position embeddings for another grid.

python make_positions.py, in this folder, with PyTorch installed; with --check it
recomputes and compares with the file that is there. The steps are those of timm's
resample_abs_pos_embed, in float64; the input is golden/formula.py's "positions".
"""
import json
import pathlib
import sys

import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "golden"))
import formula  # noqa: E402

CASES = [  # class tokens, channels, rows and columns before -> after
    (1, 2, (4, 4), (7, 7)),
    (0, 3, (7, 7), (4, 4)),
    (1, 1, (14, 14), (24, 24)),
    (2, 2, (3, 8), (5, 2)),
    (1, 2, (1, 1), (3, 2)),
    (0, 1, (16, 16), (3, 16)),
    (1, 2, (2, 6), (4, 3)),
]


def resample(table, prefix, old, new):
    rest = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    rest = F.interpolate(rest, size=new, mode="bicubic", antialias=True)
    return torch.cat((table[:, :prefix], rest.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1])), 1)


cases = []
for prefix, dim, old, new in CASES:
    n = (prefix + old[0] * old[1]) * dim
    table = torch.from_numpy(formula.values("positions", n, 1.0, 0.25)).double().reshape(1, -1, dim)
    want = resample(table, prefix, old, new).flatten().tolist()
    cases.append({"prefix": prefix, "dim": dim, "from": old, "to": new, "want": want})

path = HERE / "positions.json"
if "--check" in sys.argv[1:]:
    for have, case in zip(json.loads(path.read_text())["cases"], cases, strict=True):
        a, b = torch.tensor(have.pop("want"), dtype=torch.float64), torch.tensor(case.pop("want"), dtype=torch.float64)
        assert json.dumps(have) == json.dumps(case), (have, case)
        assert torch.linalg.norm(a - b) <= 1e-12 * torch.linalg.norm(b), have
else:
    path.write_text(json.dumps({"torch": torch.__version__, "cases": cases}) + "\n")
