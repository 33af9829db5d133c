"""The code blocks of README and the docs."""

import re
from pathlib import Path

BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Those of one page in one language."""
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]
