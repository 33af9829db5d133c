#!/usr/bin/env bash
# Writes the site of the docs into site/; a broken link or reference stops it. `serve` shows it while you write:
#
#   tools/build_docs.sh          # once: pip install -e '.[docs]' (torch is not needed)
#   tools/build_docs.sh serve
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
PYTHON=$([ -x "$VENV/bin/python" ] && echo "$VENV/bin/python" || echo python3)
"$PYTHON" -c 'import mkdocs, material, mkdocstrings' 2>/dev/null \
  || { echo "error: the site needs: $PYTHON -m pip install -e '.[docs]'" >&2; exit 1; }
export NO_MKDOCS_2_WARNING=1  # an advertisement
exec "$PYTHON" -m mkdocs "${1:-build}" --strict
