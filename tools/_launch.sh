# Shared by dist_train.sh and dist_test.sh: `launch TOOL GPUS ARGS...` runs tools/TOOL.py under torchrun.
# NNODES, NODE_RANK, MASTER_ADDR and PORT are as in OpenMMLab. On one node a free port is found when PORT is not set.
launch() {
  local root tool=$1 gpus=$2 python=${PYTHON:-}
  shift 2
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  # The repository's own environment serves where none is active.
  if [ -z "$python" ]; then
    python=python
    [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ] && python=$root/.venv/bin/python
  fi
  [[ $gpus =~ ^[1-9][0-9]*$ ]] || { echo "error: the number of processes must be a positive number, got '$gpus'" >&2; exit 2; }
  local nnodes=${NNODES:-1} rendezvous
  if [ "$nnodes" -eq 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone)
  else
    rendezvous=(--node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
  fi
  exec "$python" -m torch.distributed.run --nnodes "$nnodes" --nproc_per_node "$gpus" "${rendezvous[@]}" \
    "$root/tools/$tool.py" "$@" --launcher pytorch
}
