"""Makes tests/fixtures/tiny: a model of four residual layers that real ONNX Runtime runs in microseconds.

    .runtime/venv/bin/python scripts/tiny_model.py tests/fixtures/tiny

Weights come from a formula and the file is checked in, so whoever reads a digest in a test can make the same file again.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 4
WIDTH = 8
WORDS = 64


def weights(name, shape, seed):
    index = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    # Large enough that layers differ, small enough that the hyperbolic tangent does not saturate.
    return numpy_helper.from_array((np.sin((index * 0.37 + seed) * 12.9898) / 2).astype(np.float32), name)


def model():
    node = lambda op, inputs, output, **attributes: helper.make_node(op, inputs, [output], name=f"/{output}", **attributes)
    nodes = [
        node("Gather", ["words", "input_ids"], "x0"),
        node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], "columns"),
    ]
    initializers = [
        weights("words", (WORDS, WIDTH), 0.5),
        numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
    ]
    for layer in range(LAYERS):
        nodes += [
            node("MatMul", [f"x{layer}", f"w{layer}"], f"product{layer}"),
            node("Tanh", [f"product{layer}"], f"tanh{layer}"),
            node("Mul", [f"tanh{layer}", "columns"], f"masked{layer}"),
            node("Add", [f"x{layer}", f"masked{layer}"], f"x{layer + 1}"),
        ]
        initializers.append(weights(f"w{layer}", (WIDTH, WIDTH), 1.0 + layer))
    nodes.append(node("Identity", [f"x{LAYERS}"], "last_hidden_state"))
    tokens = ["batch", "sequence"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, WIDTH])],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny_model.py")
    onnx.checker.check_model(made)
    return made


def tokenizer():
    vocabulary = {"[UNK]": 0, **{f"w{number}": number for number in range(1, WORDS)}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
folder.joinpath("model.onnx").write_bytes(model().SerializeToString(deterministic=True))
folder.joinpath("tokenizer.json").write_text(json.dumps(tokenizer(), indent=1) + "\n")
folder.joinpath("config.json").write_text(json.dumps({"max_position_embeddings": 64}) + "\n")
