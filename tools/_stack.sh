# Shared by setup_env.sh, run_tests.sh and quickstart.sh: takes `--stack NAME` off the arguments and says where the
# environment of that stack is. What the stacks are is in mlp_backbones/environment.py.
STACK=onedl
case "${1:-}" in
  --stack) STACK=${2:-} && shift $(($# < 2 ? 1 : 2)) ;;
  --stack=*) STACK=${1#--stack=} && shift ;;
esac
case $STACK in
  onedl) SUFFIX= ;;
  openmmlab) SUFFIX=-$STACK ;;
  *) echo "error: --stack must be onedl or openmmlab, got '$STACK'" >&2 && exit 2 ;;
esac
VENV=${VENV:-.venv$SUFFIX}
