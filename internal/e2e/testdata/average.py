"""Trains a small classifier in PyTorch, in float64, on samples of two labels,
and averages its parameters: what train.ema and mixup are to agree with.

  average.py REQUEST.json   prints losses, parameters and averages as JSON
"""
import json
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

request = json.load(open(sys.argv[1]))
torch.set_default_dtype(torch.float64)


class Classifier(nn.Module):
    def __init__(self, width, hidden, classes):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(F.gelu(self.hidden(x.flatten(1))))


def single(values):
    """The float32 numbers that Go has written with as few digits as tell them apart."""
    return torch.tensor(values, dtype=torch.float32).double()


classes = request["classes"]
shape = [len(request["Params"]["hidden.bias"]), len(request["Params"]["head.bias"])]
model = Classifier(len(request["Params"]["hidden.weight"]) // shape[0], *shape)
model.load_state_dict({k: single(request["Params"][k]).reshape(v.shape) for k, v in model.state_dict().items()})

options = request["optimizer"]
optimizer = getattr(torch.optim, options.pop("kind"))(model.parameters(), **options)

# The first update of an AveragedModel copies the parameters: here those at the
# start, as train.ema does.
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(request["decay"]))
average.update_parameters(model)

losses = []
for batch in request["Batches"]:
    labels, labels2 = torch.tensor(batch["Labels"]), torch.tensor(batch["Labels2"])
    mix = single(batch["Mix"])[:, None]
    target = mix * F.one_hot(labels, classes) + (1 - mix) * F.one_hot(labels2, classes)
    images = single(batch["Images"]).reshape(len(labels), -1)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), target, label_smoothing=request["smoothing"])
    loss.backward()
    optimizer.step()
    average.update_parameters(model)
    losses.append(loss.item())


def state(m):
    return {k: v.flatten().tolist() for k, v in m.state_dict().items()}


json.dump({"Losses": losses, "Params": state(model), "Average": state(average.module)}, sys.stdout)
