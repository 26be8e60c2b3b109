#!/bin/bash
# Several machines of a SLURM cluster: Ray on each of them, a worker on each GPU.
#
#     sbatch examples/slurm.sh CHECKPOINT DATA        such as: ckpt omnimedvqa:/shared/OmniMedVQA
#
# The folder in which it is submitted, the environment, the checkpoint and the data must be on a file system that all
# nodes see at the same path. When the time is up the run stops cleanly, the job is queued again and goes on.
#
#SBATCH --job-name=safemed-eval
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

model=$1 data=$2
gpus=8 # of a node, as above
source .venv/bin/activate

# Whoever knows the token may run code on these nodes: it is this job's own.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 20000))
start=(ray start --block --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$gpus")

srun --nodes=1 --ntasks=1 --nodelist="$head" "${start[@]}" --head --port="$port" --include-dashboard=false &
until (: >"/dev/tcp/$head/$port") 2>/dev/null; do sleep 1; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --exclude="$head" "${start[@]}" --address="$head:$port" &
fi

# Workers for nodes that come up late wait for them.
safemed-eval certify --model "$model" --data "$data" --sigma 0.25 --n 10000 --out runs/certify-0.25 \
  --ray "$head:$port" --device cuda --workers $((SLURM_JOB_NUM_NODES * gpus)) &
run=$!
trap 'kill -TERM $run' TERM
code=0
wait $run || code=$?
if [ $code -gt 128 ]; then # a signal came: wait until the run has stopped
  code=0
  wait $run || code=$?
fi
[ $code -ne 130 ] || scontrol requeue "$SLURM_JOB_ID"
exit $code
