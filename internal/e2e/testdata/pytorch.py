"""Exchanges weights with the trainers of a folder: python pytorch.py FOLDER

For each NAME.safetensors that a trainer saved there, with the images of
NAME.images.safetensors, the model of golden/models.py loads the weights
strictly and its logits go to NAME.logits.safetensors. Then a model of PyTorch's
own making is saved as NAME.DTYPE.torch.safetensors, with its logits.
"""
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "golden"))
from make import FULL  # noqa: E402

torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
for golden in FULL:
    weights = folder / f"{golden.name}.safetensors"
    if not weights.exists():
        continue
    images = load_file(folder / f"{golden.name}.images.safetensors")["images"]
    model = golden.build()
    model.load_state_dict(load_file(weights), strict=True)
    with torch.no_grad():
        save_file({"logits": model(images)}, folder / f"{golden.name}.logits.safetensors")

        torch.manual_seed(7)
        for p in model.parameters():
            p.normal_(std=0.1)
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            state = {name: p.to(dtype) for name, p in model.state_dict().items()}
            model.load_state_dict({name: p.float() for name, p in state.items()}, strict=True)
            stem = f"{golden.name}.{str(dtype).removeprefix('torch.')}.torch"
            save_file(state, folder / f"{stem}.safetensors")
            save_file({"logits": model(images)}, folder / f"{stem}.logits.safetensors")
    print(golden.name)
