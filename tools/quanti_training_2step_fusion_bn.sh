#!/usr/bin/env bash
# Quantization training with batch norms absorbed in two steps: steps 0 to 2 (training), step 3 (the compiled integer
# model), and the proof that step 3 returns what step 2 returns. Called again on an unfinished run, it continues it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tools/quanti_training_2step_fusion_bn.sh --config CONFIG [--pipeline-test] [--out RUN] [--ctx CTX] [--seed N]

  --config CONFIG   for example configs/4pe_resize/multitask.py
  --pipeline-test   the whole path with few iterations on the validation set: minutes instead of a night
  --out RUN         folder of the run; default runs/<folder of the config>
  --ctx CTX         cpu, cpu,cpu for two processes, or numbers of GPUs such as 0,1; default is the config's default_ctx
  --seed N          of everything random; default is the config's env.seed
TEXT
}

fail() { echo "error: $*" >&2; exit 2; }

config="" out="" ctx="" seed="" pipeline_test=""
while [ $# -gt 0 ]; do
  case "$1" in
    --config | --out | --ctx | --seed)
      [ $# -ge 2 ] || fail "$1 needs a value; see --help"
      printf -v "${1#--}" '%s' "$2"
      shift 2 ;;
    --pipeline-test) pipeline_test=--pipeline-test; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument '$1'" ;;
  esac
done
[ -n "$config" ] || { usage >&2; fail "--config is missing"; }
[ -f "$config" ] || fail "$config: no such config file"

# The config and --out are the caller's paths; the packages are found from the checkout.
config=$(realpath -- "$config")
repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
out=${out:-$repository/runs/$(basename -- "$(dirname -- "$config")")}
mkdir -p -- "$out"
out=$(realpath -- "$out")
cd -- "$repository"

python=python
if ! "$python" -c 'import torch, tvm, onnx' >/dev/null 2>&1 && [ -x .venv/bin/python ]; then
  python=.venv/bin/python
fi
"$python" -c 'import torch, tvm, onnx' >/dev/null 2>&1 || fail "no Python with torch, tvm and onnx found; run: make setup"

# The mark of an unfinished run holds what it was called with: only the same call may continue it, and nothing but a
# pipeline test is given up for another call.
mark=$out/unfinished
call="--config $config${pipeline_test:+ $pipeline_test}${seed:+ --seed $seed}"
resume=""
if [ -f "$mark" ]; then
  begun=$(cat -- "$mark")
  if [ "$begun" = "$call" ]; then
    echo "$out holds an unfinished run of this call: continuing it (delete the folder to start again)"
    resume=--resume
  elif [[ "$begun" != *" --pipeline-test"* ]]; then
    fail "$out holds an unfinished run; continue it with: bash tools/quanti_training_2step_fusion_bn.sh $begun --out $out
or give another folder with --out, or delete this one"
  fi
fi

run() { echo; echo "== $*"; "$python" -m "$@"; }

train=(--config "$config" --out "$out")
[ -z "$pipeline_test" ] || train+=("$pipeline_test")
[ -z "$ctx" ] || train+=(--ctx "$ctx")
[ -z "$seed" ] || train+=(--seed "$seed")

prefixes=(with-bn fusion-bn-c1 fusion-bn-c2)
printf '%s' "$call" >"$mark"
for step in 0 1 2; do
  run train.train "${train[@]}" --step "$step" ${resume:+"$resume"} || {
    status=$?
    # Refused before it began: nothing of this call lies in the folder that could be continued.
    if [ "$step" -eq 0 ] && [ -z "$resume" ] && ! [ "$out/with-bn-init.params" -nt "$mark" ]; then rm -- "$mark"; fi
    exit "$status"
  }
  run compile.importer "$out/${prefixes[$step]}-export-last.onnx"
done
run compile.build --config "$config" --out "$out" --source fusion-bn-c2
run train.data.generate --out "$out/verify-scenes" --count 3 --seed 3000000 --only-images
echo
echo "== compile.verify: step 2 against the compiled model"
"$python" -m compile.verify --config "$config" --out "$out" --images "$out/verify-scenes" --json "$out/verify.json" \
  | tee "$out/verify.txt"
rm -- "$mark"
echo
echo "Done. Everything lies in $out; run the model with"
echo "  $python -m runtime.infer --model $out/int-inference-export-last.so --images PICTURES --out FOLDER"
