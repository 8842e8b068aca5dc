"""Gives one of onnx's light models, whose weights are filled with one number each, real numbers instead: real_weights.py from.onnx to.onnx

The numbers are drawn from a fixed seed with the spread that keeps activations in range, so that a difference of one bit anywhere shows in
the answer, as it would in a trained model. A softmax at the end is left away: it makes nothing but zeros and a one of large numbers.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

source, target = sys.argv[1:]
model = onnx.load(source)
graph = model.graph
rng = np.random.default_rng(1)
shapes = {tensor.name: tuple(numpy_helper.to_array(tensor)) for tensor in graph.initializer if tensor.data_type == 7}
users = {}
for node in graph.node:
    for place, name in enumerate(node.input):
        users.setdefault(name, (node.op_type, place))


def values(shape, user, place):
    """Scales and variances about 1, matrices by the number of their columns, everything else small."""
    if user == "Unsqueeze" or (user == "BatchNormalization" and place in (1, 4)):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) >= 2:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return rng.normal(0, 0.1, shape)


nodes = []
for node in graph.node:
    if node.op_type != "ConstantOfShape":
        nodes.append(node)
        continue
    array = values(shapes[node.input[0]], *users[node.output[0]]).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
if nodes[-1].op_type == "Softmax":
    graph.output[0].name = nodes.pop().input[0]
    graph.output[0].type.tensor_type.ClearField("shape")
del graph.node[:]
graph.node.extend(nodes)
# Since version 4 an initialiser that is listed as an input may be overridden, and nothing is folded into it.
constant = {tensor.name for tensor in graph.initializer}
inputs = [value for value in graph.input if value.name not in constant]
del graph.input[:]
graph.input.extend(inputs)
model.ir_version = max(model.ir_version, 4)
onnx.save(model, target)
