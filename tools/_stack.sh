# Shared by setup_env.sh, run_tests.sh and quickstart.sh: parse `--stack NAME` and set VENV to the environment of that
# stack. The stacks are defined in mlp_backbones/utils/environment.py.
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
