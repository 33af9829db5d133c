#!/usr/bin/env bash
# Build the docs site in site/, or serve it with live reload. Broken links and references are errors.
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
