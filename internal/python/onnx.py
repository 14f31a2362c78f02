"""Checks ONNX files and runs them with ONNX Runtime, for internal/python.

Standard input is JSON, a list of {"model", "image", "batches"}: a file, float32
numbers as a file without header, and how many samples to give in each run, the
first ones. Standard output is JSON, a list of lists of logits.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

answers = []
for case in json.load(sys.stdin):
    path = case["model"]
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # warnings
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    (logits,) = session.get_outputs()
    assert (image.name, logits.name) == ("image", "logits"), (image.name, logits.name)
    assert image.type == logits.type == "tensor(float)", (image.type, logits.type)
    assert image.shape[0] == logits.shape[0] == "batch", (image.shape, logits.shape)
    data = np.fromfile(case["image"], "<f4").reshape(-1, *image.shape[1:])
    answers.append([
        session.run(["logits"], {"image": data[:n]})[0].astype(float).ravel().tolist()
        for n in case["batches"]
    ])
json.dump(answers, sys.stdout)
