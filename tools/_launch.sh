# Shared by the dist_ and slurm_ scripts.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Use the repository's environment if none is active.
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=python
  [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python
fi

# Print the comments at the top of the called script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# needs NUMBER ARGS...: print the usage on -h, or if there are fewer than NUMBER arguments.
needs() {
  case ${2:-} in -h | --help) usage && exit 0 ;; esac
  [ $# -gt "$1" ] || { usage >&2; exit 2; }
}

# launch TOOL PROCESSES ARGS...: run tools/TOOL.py under torchrun.
# NNODES, NODE_RANK, MASTER_ADDR and PORT are as in OpenMMLab. On one node, a free port is used if PORT is not set.
launch() {
  local tool=$1 gpus=$2
  shift 2
  if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
    { usage && echo && echo "error: the number of processes must be a positive number, got '$gpus'"; } >&2
    exit 2
  fi
  local nnodes=${NNODES:-1} rendezvous
  if [ "$nnodes" -eq 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone)
  else
    rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
  fi
  exec "$python" -m torch.distributed.run --nnodes "$nnodes" --nproc_per_node "$gpus" "${rendezvous[@]}" \
    "$root/tools/$tool.py" "$@" --launcher pytorch
}

# slurm TOOL PARTITION JOB_NAME ARGS...: run tools/TOOL.py under srun.
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are as in OpenMMLab. srun's variables become those of torchrun, with a
# port for each job: two jobs on one machine would meet on mmengine's 29500.
slurm() {
  local tool=$1 partition=$2 job=$3
  shift 3
  local gpus=${GPUS:-8} extra
  local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  read -ra extra <<<"${SRUN_ARGS:-}"
  exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${extra[@]+"${extra[@]}"} \
    bash -c '
      export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
      export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
      export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "${SLURM_STEP_NODELIST:-$SLURM_NODELIST}" | head -n 1)}
      exec "$@"' bash "$python" -u "$root/tools/$tool.py" "$@" --launcher pytorch
}
