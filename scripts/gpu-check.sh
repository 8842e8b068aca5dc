#!/usr/bin/env bash
# Compares a GPU of NVIDIA with the CPU, stage by stage, and times both. Ends with 0 where every stage is within its bundle's tolerance, with 1
# where one is not, with 2 and a sentence where there is no GPU.
#
#   scripts/gpu-check.sh                     all-MiniLM-L6-v2 in three stages and the vision models of .runtime, on cuda:0
#   scripts/gpu-check.sh BUNDLE...           these bundles
#   scripts/gpu-check.sh --append            also appends the tables to docs/performance.md
#   scripts/gpu-check.sh --pack DIR [BUNDLE...]
#                                            puts everything that another machine needs into DIR, as parts of at most 48 MiB
#
# Variables: FXN_ONNXRUNTIME, a folder with libonnxruntime.so (or .so.VERSION) and beside it libonnxruntime_providers_shared.so and
# libonnxruntime_providers_cuda.so; without it the package onnxruntime-gpu is fetched into .runtime/onnxruntime-gpu once. FXN_DEVICE, cuda:0
# unless told otherwise. FXN_SECONDS, how long each measurement takes (2). FXN_GPU_CHECK and FXN_BIN, programs that are built already. The driver, CUDA and cuDNN come with the machine; where they are in
# folders of Python packages (nvidia/*/lib), those are found.
#
# A machine without a registry, to which only so much can be carried at a time: `--pack DIR` here; carry the files of DIR there, in as many
# turns as it takes (no file is larger than 48 MiB, and DIR/turns lists them by turns of less than 60 MiB); then there `bash DIR/run.sh`.
# The program in it is complete in itself. The tables come out on stdout and as DIR/gpu.md, to be appended to docs/performance.md here.
set -euo pipefail

VERSION=1.31.1
PART_BYTES=$((48 << 20))
TURN_BYTES=$((60 << 20))

cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '%s\n' "gpu-check: $*" >&2; }
die() { say "$*"; exit 1; }

append=
pack=
bundles=()
while (($#)); do
  case $1 in
    --append) append=1 ;;
    --pack) pack=${2:?--pack needs a folder}; shift ;;
    -*) die "$1 is unknown; the head of this script says what there is" ;;
    *) bundles+=("$1") ;;
  esac
  shift
done

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
if [[ -z $pack ]] && ! has_gpu; then
  say "there is no GPU of NVIDIA here (nvidia-smi names none), so there is nothing to compare; --pack DIR prepares the check for a machine that has one"
  exit 2
fi

# The library, whole or not at all.
library=${FXN_ONNXRUNTIME:-$PWD/.runtime/onnxruntime-gpu}
if [[ -z ${FXN_ONNXRUNTIME:-} && ! -f $library/VERSION ]]; then
  say "fetching onnxruntime-gpu $VERSION, about 250 MB, into $library"
  mkdir -p .runtime
  work=$(mktemp -d .runtime/.onnxruntime-gpu.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" "onnxruntime-gpu==$VERSION"
  python3 - "$work" <<'PYTHON'
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
(work / "lib").mkdir()
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
wanted = ("capi/libonnxruntime.so", "capi/libonnxruntime_providers_shared.so", "capi/libonnxruntime_providers_cuda.so")
for name in wheel.namelist():
    end = name.rsplit("onnxruntime/", 1)[-1]
    if end.startswith(wanted) or end in ("LICENSE", "ThirdPartyNotices.txt"):
        (work / "lib" / end.rsplit("/", 1)[-1]).write_bytes(wheel.read(name))
PYTHON
  echo "$VERSION" >"$work/lib/VERSION"
  mv "$work/lib" "$library"
fi
[[ -d $library ]] || die "FXN_ONNXRUNTIME is $library, which is no folder"

# The program and the bundles.
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
program=${FXN_GPU_CHECK:-}
if [[ -z $program ]]; then
  cargo build --quiet --release -p inference-host --example gpu_check
  program=$target/release/examples/gpu_check
fi
if ((${#bundles[@]} == 0)); then
  scripts/models.sh
  fxn=${FXN_BIN:-}
  if [[ -z $fxn ]]; then
    cargo build --quiet --release -p fxn-cli
    fxn=$target/release/fxn
  fi
  for model in all-minilm-l6-v2:3 squeezenet:1 page-rotation:1; do
    name=${model%:*}
    bundle=.runtime/gpu-check/$name
    if [[ ! -f $bundle/manifest.json ]]; then
      mkdir -p .runtime/gpu-check
      extra=()
      [[ $name == page-rotation ]] && extra=(--max-positions 1)
      "$fxn" --home "$(mktemp -d)" model split ".runtime/models/$name" "$bundle" --stages "${model#*:}" "${extra[@]}" >/dev/null
    fi
    bundles+=("$bundle")
  done
fi

# What runs, here or there: `check PROGRAM LIBRARY TABLES BUNDLE...`.
runner=$(cat <<'RUNNER'
check() {
  local program=$1 library=$2 tables=$3 worst=0 code lib
  shift 3
  # The loader knows nothing of Python's folders.
  for lib in $(python3 -c 'import site,sys,glob; print(*(f for p in sys.path + site.getsitepackages() for f in glob.glob(p + "/nvidia/*/lib")))' 2>/dev/null); do
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib"
  done
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"
  : >"$tables"
  for bundle in "$@"; do
    code=0
    "$program" "$bundle" --onnxruntime "$library" --device "${FXN_DEVICE:-cuda:0}" --seconds "${FXN_SECONDS:-2}" --markdown "$tables.one" || code=$?
    [[ ! -f $tables.one ]] || { cat "$tables.one" >>"$tables"; echo >>"$tables"; rm "$tables.one"; }
    ((code <= worst)) || worst=$code
  done
  return "$worst"
}
RUNNER
)

if [[ -n $pack ]]; then
  [[ ! -e $pack ]] || die "$pack is there already"
  mkdir -p "$pack/parts"
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  mkdir "$tree/lib" "$tree/bundles"
  cp "$program" "$tree/gpu_check"
  cp -L "$library"/libonnxruntime.so* "$library"/libonnxruntime_providers_{shared,cuda}.so "$tree/lib/"
  for bundle in "${bundles[@]}"; do cp -rL "$bundle" "$tree/bundles/"; done
  tar -C "$tree" -cz . | split -b "$PART_BYTES" -d -a 3 - "$pack/parts/part."
  (cd "$pack" && sha256sum parts/part.*) >"$pack/sums"
  {
    echo '#!/usr/bin/env bash'
    echo '# Puts the parts together and runs the check; scripts/gpu-check.sh says how it came here.'
    echo 'set -euo pipefail'
    echo 'cd "$(dirname "${BASH_SOURCE[0]}")"'
    echo 'sha256sum --quiet -c sums'
    echo '[[ -f tree/.done ]] || { rm -rf tree; mkdir tree; cat parts/part.* | tar -C tree -xz; touch tree/.done; }'
    printf '%s\n' "$runner"
    echo 'check tree/gpu_check tree/lib gpu.md tree/bundles/*'
  } >"$pack/run.sh"
  python3 - "$pack" "$TURN_BYTES" <<'PYTHON'
import pathlib, sys
pack, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2])
turns, size = [[]], 0
for path in [pack / "run.sh", pack / "sums", *sorted((pack / "parts").iterdir())]:
    if size + path.stat().st_size > limit:
        turns.append([])
        size = 0
    turns[-1].append(str(path.relative_to(pack)))
    size += path.stat().st_size
(pack / "turns").write_text("".join(" ".join(turn) + "\n" for turn in turns))
PYTHON
  say "carry the files of $pack, a line of $pack/turns at a time, and run: bash $(basename "$pack")/run.sh"
  exit 0
fi

eval "$runner"
tables=$(mktemp)
code=0
check "$program" "$library" "$tables" "${bundles[@]}" || code=$?
if [[ -n $append && $code != 2 ]]; then
  { echo; cat "$tables"; } >>docs/performance.md
fi
rm -f "$tables"
exit "$code"
