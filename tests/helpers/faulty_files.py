"""Files as they go bad."""

from pathlib import Path


def empty(path: Path) -> str:
    path.write_bytes(b'')
    return 'is empty'


def text(path: Path) -> str:
    path.write_text('<html>no picture here</html>')
    return 'is not an image'


def missing(path: Path) -> str:
    path.unlink()
    return 'does not exist'


def cut(path: Path) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    return 'truncated'


KINDS = (empty, text, missing, cut)
