"""Writes the fixture that our embeddings are compared with: an independent implementation of all-MiniLM-L6-v2.

    minilm_reference.py MODEL_DIR SENTENCES OUT_PREFIX

It uses neither ONNX, nor ONNX Runtime, nor anything of `minilm_to_onnx.py`: a forward pass in plain numpy, float64 throughout, one
sentence at a time without padding, straight from the safetensors file; mean over the real tokens; L2 norm. The tokeniser is the
Python `tokenizers` package, cut at 256 tokens, special tokens included. Writes OUT_PREFIX.f32 (one row of 384 little-endian float32 a
sentence) and OUT_PREFIX.tokens.json (token counts after truncation).
"""

import json
import math
import pathlib
import struct
import sys

import numpy as np
from tokenizers import Tokenizer

MAX_TOKENS = 256
erf = np.frompyfunc(math.erf, 1, 1)


def load(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        base = file.tell()
        weights = {}
        for name, info in header.items():
            if info.get("dtype") == "F32":
                file.seek(base + info["data_offsets"][0])
                count = math.prod(info["shape"])
                weights[name] = np.frombuffer(file.read(4 * count), "<f4").reshape(info["shape"]).astype(np.float64)
    return weights


def norm(x, weights, name, eps):
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    return centred / deviation * weights[name + ".LayerNorm.weight"] + weights[name + ".LayerNorm.bias"]


def dense(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def forward(ids, types, weights, config):
    eps, heads = config["layer_norm_eps"], config["num_attention_heads"]
    size = config["hidden_size"] // heads
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][types], weights, "embeddings", eps)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}."
        q, k, v = (dense(x, weights, f"{layer}attention.self.{part}") for part in ("query", "key", "value"))
        context = np.empty_like(x)
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            scores = q[:, columns] @ k[:, columns].T / math.sqrt(size)
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            context[:, columns] = scores / scores.sum(axis=1, keepdims=True) @ v[:, columns]
        x = norm(x + dense(context, weights, layer + "attention.output.dense"), weights, layer + "attention.output", eps)
        inner = dense(x, weights, layer + "intermediate.dense")
        inner = inner * 0.5 * (1.0 + erf(inner / math.sqrt(2.0)).astype(np.float64))
        x = norm(x + dense(inner, weights, layer + "output.dense"), weights, layer + "output", eps)
    return x


def main():
    if len(sys.argv) != 4:
        raise SystemExit("usage: minilm_reference.py MODEL_DIR SENTENCES OUT_PREFIX")
    source, sentences, prefix = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    config = json.loads((source / "config.json").read_text())
    weights = load(source / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    rows, counts = [], []
    for line in sentences.read_text(encoding="utf-8").split("\n")[:-1]:
        encoding = tokenizer.encode(line)
        hidden = forward(np.array(encoding.ids), np.array(encoding.type_ids), weights, config)
        mean = hidden.mean(axis=0)
        rows.append(mean / np.sqrt((mean**2).sum()))
        counts.append(len(encoding.ids))
    pathlib.Path(prefix + ".f32").write_bytes(np.array(rows).astype("<f4").tobytes())
    pathlib.Path(prefix + ".tokens.json").write_text(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
