"""Answers the pages of tests/fixtures/pages with ONNX's own reference implementation in numpy.

    vision_reference.py MODEL.onnx PAGES_DIR OUT.json

Writes the scores of every page, in the order of the files' names.
"""

import json
import pathlib
import struct
import sys

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def read_row(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return np.frombuffer(raw[8 + length :], np.uint8).reshape(header["page"]["shape"])


def main():
    model, pages, target = map(pathlib.Path, sys.argv[1:])
    rows = np.stack([read_row(path) for path in sorted(pages.glob("*.safetensors"))])
    (scores,) = ReferenceEvaluator(onnx.load(model)).run(None, {"page": rows})
    target.write_text(json.dumps([[float(score) for score in row] for row in scores], indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main()
