#!/usr/bin/env bash
# Everything of this project that needs a GPU, in less than 12 minutes; writes benchmarks/GPU.md.
#
#   benchmarks/device.sh [--dry] [--wheels DIR] [--out FILE] [STEP...]
#
# --dry     the same steps on a machine without a GPU, tiny; writes to standard output
# --wheels  install these wheels first, where packages cannot be downloaded
# --out     the file to write
# STEP      machine, votes, conformance, speed, at-grpo; all of them by default. A step that fails or takes too long is
#           noted as such, and the others go on. Exit code 1 if any failed.
set -uo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
dry="" out="$root/benchmarks/GPU.md" steps=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry) dry=--dry out="" ;;
    --wheels) wheels="$(cd "$2" && pwd)"; shift ;;
    --out) out="$2"; shift ;;
    -*) echo "$1: not an option; see the head of $0" >&2; exit 2 ;;
    *) steps+=("$1") ;;
  esac
  shift
done
[ ${#steps[@]} -gt 0 ] || steps=(machine votes conformance speed at-grpo)
python="${PYTHON:-python3}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ -n "${wheels:-}" ]; then
  site="$(mktemp -d)"
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit 1
  PYTHONPATH="$PYTHONPATH:$site"
fi
cd "$root" || exit 1

conformance() {
  local device=cuda
  [ -z "$dry" ] || device=cpu
  local chosen=(-n 8); [ -z "$dry" ] || chosen=(-k "qwen2_5_vl and (batch or shortcuts)")
  for dtype in float32 bfloat16; do
    echo "$dtype:"; echo '```'
    SAFEMED_EVAL_TEST_DEVICE=$device SAFEMED_EVAL_TEST_DTYPE=$dtype OMP_NUM_THREADS=1 \
      "$python" -m pytest -q -p no:cacheprovider "${chosen[@]}" tests/test_conformance.py 2>&1 |
      grep -E "^(FAILED|ERROR|SKIPPED|E  )|passed|failed|error" | cut -c1-300 | tail -40
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
    echo '```'
  done
  return ${failed:-0}
}

limit() { case "$1" in machine) echo 40 ;; votes) echo 130 ;; conformance) echo 200 ;; speed) echo 220 ;; *) echo 130 ;; esac; }

worst=0
[ -z "$out" ] || exec > "$out"
{
  echo "# On a GPU"
  echo
  echo "Made by \`benchmarks/device.sh ${steps[*]}\` on $(date -u +%F). Weights of the 3B model are random."
  for step in "${steps[@]}"; do
    printf '\n## %s\n\n' "$step"
    began=$SECONDS
    if [ "$step" = conformance ]; then
      export -f conformance; export python dry
      timeout -k 5 "$(limit conformance)" bash -c conformance
    else
      timeout -k 5 "$(limit "$step")" "$python" benchmarks/gpu.py "$step" $dry 2> "/tmp/device-$step.err"
    fi
    code=$?
    if [ $code != 0 ]; then
      worst=1
      printf '\n**Failed** (exit code %s; 124 is out of time)\n' "$code"
      [ ! -s "/tmp/device-$step.err" ] || { echo '```'; tail -c 1500 "/tmp/device-$step.err"; echo '```'; }
    fi
    printf '\n(%s s)\n' "$((SECONDS - began))"
  done
}
exit $worst
