#!/usr/bin/env bash
# Everything of this project that needs a GPU, in less than 12 minutes; writes benchmarks/GPU.md.
#
#   benchmarks/device.sh [--dry] [--wheels DIR] [--out FILE] [STEP...]
#
# --dry     the same steps on a machine without a GPU, tiny; writes to standard output
# --wheels  install these wheels first, where packages cannot be downloaded
# --out     the file to write
# STEP      machine, votes, conformance, certify, pgd, compiled, at-grpo; all of them by default. A step that fails or takes too long is
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
[ ${#steps[@]} -gt 0 ] || steps=(machine votes conformance certify pgd compiled at-grpo)
python="${PYTHON:-python3}"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ -n "${wheels:-}" ]; then
  site="$(mktemp -d)"
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit 1
  PYTHONPATH="$PYTHONPATH:$site"
fi
cd "$root" || exit 1

conformance() {
  local device=cuda failed=0 log
  [ -z "$dry" ] || device=cpu
  local chosen=(-n 8)
  [ -z "$dry" ] || chosen=(-k "qwen2_5_vl and (batch or shortcuts)")
  log="$(mktemp)"
  # Plug-ins and warnings of other packages than ours are not what is tested.
  export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 OMP_NUM_THREADS=1 SAFEMED_EVAL_TEST_DEVICE=$device
  for dtype in float32 bfloat16; do
    printf '%s:\n```\n' "$dtype"
    SAFEMED_EVAL_TEST_DTYPE=$dtype "$python" -m pytest -q -p xdist -p no:cacheprovider -o filterwarnings=default \
      "${chosen[@]}" tests/test_conformance.py > "$log" 2>&1 || { failed=1; grep "^E  " "$log" | cut -c1-200 | head -20; }
    grep -E "^(FAILED|SKIPPED|.* (passed|failed))" "$log" | cut -c1-200 || tail -n 20 "$log"
    printf '```\n'
  done
  return $failed
}

limit() {  # seconds
  [ -z "$dry" ] || { echo 900; return; }
  case "$1" in machine) echo 30 ;; conformance) echo 200 ;; compiled | pgd) echo 110 ;; *) echo 150 ;; esac
}

# Seconds that a step may take: its limit, or what is left of twelve minutes.
allowed() {
  local left=$((720 - SECONDS))
  [ -z "$dry" ] || left=900
  [ "$(limit "$1")" -lt "$left" ] && limit "$1" || echo "$((left > 0 ? left : 1))"
}

worst=0 errors="$(mktemp)"
[ -z "$out" ] || exec > "$out"
{
  echo "# On a GPU"
  echo
  echo "Made by \`benchmarks/device.sh ${steps[*]}\` on $(date -u +%F). Weights of the 3B model are random."
  for step in "${steps[@]}"; do
    printf '\n## %s\n\n' "$step"
    began=$SECONDS
    : > "$errors"
    if [ "$step" = conformance ]; then
      export -f conformance; export python dry
      timeout -k 5 "$(allowed conformance)" bash -c conformance
    else
      timeout -k 5 "$(allowed "$step")" "$python" benchmarks/gpu.py "$step" $dry 2> "$errors"
    fi
    code=$?
    if [ $code != 0 ]; then
      worst=1
      printf '\n**Failed** (exit code %s; 124 is out of time)\n' "$code"
      [ ! -s "$errors" ] || { echo '```'; tail -c 1500 "$errors"; echo '```'; }
    fi
    printf '\n(%s s)\n' "$((SECONDS - began))"
  done
}
exit $worst
