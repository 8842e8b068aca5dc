"""Writes all-MiniLM-L6-v2 as the ONNX graph that Hugging Face Optimum exports.

    minilm_to_onnx.py MODEL_DIR OUT_DIR

MODEL_DIR holds `model.safetensors` (fp32) and `config.json`. Inputs of the graph: input_ids, attention_mask, token_type_ids, int64
[batch_size, sequence_length]. Output: last_hidden_state, float32 [batch_size, sequence_length, hidden]. Pooling and normalisation
are not part of it, as in the export; `fxn model split` appends them. The same weights give the same bytes, on any machine.
"""

import json
import math
import pathlib
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INT64_MAX = 9223372036854775807


def read_safetensors(path):
    raw = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + header_bytes])
    kinds = {"F32": np.float32, "I64": np.int64}
    tensors = {}
    for name, fact in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_bytes + offset for offset in fact["data_offsets"])
        tensors[name] = np.frombuffer(raw[begin:end], dtype=kinds[fact["dtype"]]).reshape(fact["shape"])
    return tensors


class Graph:
    """Collects nodes and initialisers in order; every method returns the name of the tensor it made."""

    def __init__(self):
        self.nodes = []
        self.initializers = {}
        self.value_info = []

    def weight(self, name, array):
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def constant(self, name, value, dtype=np.float32):
        return self.weight(name, np.array(value, dtype=dtype))

    def op(self, kind, inputs, path, shape=None, dtype=TensorProto.FLOAT, **attributes):
        output = f"{path}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=path, **attributes))
        if shape is not None:
            self.value_info.append(helper.make_tensor_value_info(output, dtype, shape))
        return output


class Bert:
    def __init__(self, config, tensors):
        self.graph = Graph()
        self.tensors = tensors
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.intermediate = config["intermediate_size"]
        self.positions = config["max_position_embeddings"]
        self.epsilon = config["layer_norm_eps"]
        self.head_size = self.hidden // self.heads
        self.tokens = ["batch_size", "sequence_length"]
        if config["hidden_act"] != "gelu" or config["position_embedding_type"] != "absolute":
            raise SystemExit("this script knows BERT with exact GELU and absolute positions only")

    def stream(self, width=None):
        return [*self.tokens, width or self.hidden]

    def linear(self, x, path, weights, width):
        matrix = self.graph.weight(f"{weights}.weight_transposed", self.tensors[f"{weights}.weight"].T)
        bias = self.graph.weight(f"{weights}.bias", self.tensors[f"{weights}.bias"])
        product = self.graph.op("MatMul", [x, matrix], f"{path}/MatMul", self.stream(width))
        return self.graph.op("Add", [bias, product], f"{path}/Add", self.stream(width))

    def layer_norm(self, x, path, weights):
        scale = self.graph.weight(f"{weights}.weight", self.tensors[f"{weights}.weight"])
        bias = self.graph.weight(f"{weights}.bias", self.tensors[f"{weights}.bias"])
        inputs = [x, scale, bias]
        return self.graph.op(
            "LayerNormalization", inputs, f"{path}/LayerNormalization", self.stream(), axis=-1, epsilon=self.epsilon
        )

    def attention_bias(self):
        op, constant = self.graph.op, self.graph.constant
        batch, positions = self.tokens
        axes = constant("/Unsqueeze/axes", [1, 2], np.int64)
        mask = op("Unsqueeze", ["attention_mask", axes], "/Unsqueeze", [batch, 1, 1, positions], TensorProto.INT64)
        real = op("Cast", [mask], "/Cast", [batch, 1, 1, positions], to=TensorProto.FLOAT)
        padding = op("Sub", [constant("/Constant_one", 1.0), real], "/Sub", [batch, 1, 1, positions])
        lowest = constant("/Constant_lowest", float(np.finfo(np.float32).min))
        return op("Mul", [padding, lowest], "/Mul", [batch, 1, 1, positions])

    def embeddings(self):
        op, constant, path, t = self.graph.op, self.graph.constant, "/embeddings", self.tensors
        shape = op("Shape", ["input_ids"], f"{path}/Shape", [2], TensorProto.INT64)
        one = constant(f"{path}/Constant_one", 1, np.int64)
        length = op("Gather", [shape, one], f"{path}/Gather", [], TensorProto.INT64, axis=0)
        first_axis = constant(f"{path}/Constant_axis", [0], np.int64)
        end = op("Unsqueeze", [length, first_axis], f"{path}/Unsqueeze", [1], TensorProto.INT64)
        ids = self.graph.weight("embeddings.position_ids", np.arange(self.positions, dtype=np.int64).reshape(1, -1))
        begin = constant(f"{path}/Constant_begin", [0], np.int64)
        axis = constant(f"{path}/Constant_slice_axis", [1], np.int64)
        ids = op("Slice", [ids, begin, end, axis], f"{path}/Slice", [1, "sequence_length"], TensorProto.INT64)

        def table(name, indices, shape):
            weight = self.graph.weight(f"embeddings.{name}.weight", t[f"embeddings.{name}.weight"])
            return op("Gather", [weight, indices], f"{path}/{name}/Gather", shape)

        words = table("word_embeddings", "input_ids", self.stream())
        types = table("token_type_embeddings", "token_type_ids", self.stream())
        both = op("Add", [words, types], f"{path}/Add", self.stream())
        places = table("position_embeddings", ids, [1, "sequence_length", self.hidden])
        total = op("Add", [both, places], f"{path}/Add_1", self.stream())
        return self.layer_norm(total, f"{path}/LayerNorm", "embeddings.LayerNorm")

    def heads_of(self, x, path, order):
        op = self.graph.op
        split = self.graph.constant("/attention/heads_shape", [0, 0, self.heads, self.head_size], np.int64)
        batch, positions = self.tokens
        x = op("Reshape", [x, split], f"{path}/Reshape", [batch, positions, self.heads, self.head_size])
        shape = [[batch, positions, self.heads, self.head_size][axis] for axis in order]
        return op("Transpose", [x], f"{path}/Transpose", shape, perm=order)

    def attention(self, x, bias, layer):
        op, constant = self.graph.op, self.graph.constant
        batch, positions = self.tokens
        path, weights = f"/encoder/layer.{layer}/attention", f"encoder.layer.{layer}.attention"
        query = self.linear(x, f"{path}/self/query", f"{weights}.self.query", self.hidden)
        key = self.linear(x, f"{path}/self/key", f"{weights}.self.key", self.hidden)
        value = self.linear(x, f"{path}/self/value", f"{weights}.self.value", self.hidden)
        query = self.heads_of(query, f"{path}/self/query_heads", [0, 2, 1, 3])
        key = self.heads_of(key, f"{path}/self/key_heads", [0, 2, 3, 1])
        value = self.heads_of(value, f"{path}/self/value_heads", [0, 2, 1, 3])
        square = [batch, self.heads, positions, positions]
        scores = op("MatMul", [query, key], f"{path}/self/MatMul", square)
        root = constant("/attention/Constant_root", math.sqrt(self.head_size))
        scores = op("Div", [scores, root], f"{path}/self/Div", square)
        scores = op("Add", [scores, bias], f"{path}/self/Add", square)
        weights_of = op("Softmax", [scores], f"{path}/self/Softmax", square, axis=-1)
        context = op(
            "MatMul", [weights_of, value], f"{path}/self/MatMul_1", [batch, self.heads, positions, self.head_size]
        )
        context = op(
            "Transpose",
            [context],
            f"{path}/self/Transpose",
            [batch, positions, self.heads, self.head_size],
            perm=[0, 2, 1, 3],
        )
        joined = constant("/attention/joined_shape", [0, 0, self.hidden], np.int64)
        context = op("Reshape", [context, joined], f"{path}/self/Reshape", self.stream())
        output = self.linear(context, f"{path}/output/dense", f"{weights}.output.dense", self.hidden)
        output = op("Add", [output, x], f"{path}/output/Add", self.stream())
        return self.layer_norm(output, f"{path}/output/LayerNorm", f"{weights}.output.LayerNorm")

    def gelu(self, x, path):
        op, constant, shape = self.graph.op, self.graph.constant, self.stream(self.intermediate)
        scaled = op("Div", [x, constant("/gelu/Constant_root", math.sqrt(2.0))], f"{path}/Div", shape)
        error = op("Erf", [scaled], f"{path}/Erf", shape)
        shifted = op("Add", [error, constant("/gelu/Constant_one", 1.0)], f"{path}/Add", shape)
        product = op("Mul", [x, shifted], f"{path}/Mul", shape)
        return op("Mul", [product, constant("/gelu/Constant_half", 0.5)], f"{path}/Mul_1", shape)

    def layer(self, x, bias, layer):
        path, weights = f"/encoder/layer.{layer}", f"encoder.layer.{layer}"
        x = self.attention(x, bias, layer)
        inner = self.linear(x, f"{path}/intermediate/dense", f"{weights}.intermediate.dense", self.intermediate)
        inner = self.gelu(inner, f"{path}/intermediate/intermediate_act_fn")
        output = self.linear(inner, f"{path}/output/dense", f"{weights}.output.dense", self.hidden)
        output = self.graph.op("Add", [output, x], f"{path}/output/Add", self.stream())
        return self.layer_norm(output, f"{path}/output/LayerNorm", f"{weights}.output.LayerNorm")

    def model(self):
        bias = self.attention_bias()
        x = self.embeddings()
        for layer in range(self.layers):
            x = self.layer(x, bias, layer)
        last = self.graph.nodes[-1]
        last.output[0] = "last_hidden_state"
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, self.tokens)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, self.stream())
        graph = helper.make_graph(
            self.graph.nodes,
            "main_graph",
            inputs,
            [output],
            initializer=list(self.graph.initializers.values()),
            value_info=[value for value in self.graph.value_info if value.name != x],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="minilm_to_onnx", producer_version="1"
        )


def main():
    if len(sys.argv) != 3:
        raise SystemExit("usage: minilm_to_onnx.py MODEL_DIR OUT_DIR")
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    model = Bert(config, read_safetensors(source / "model.safetensors")).model()
    onnx.checker.check_model(model, full_check=True)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
