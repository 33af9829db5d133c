"""Files that are written whole, or not at all."""

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = '.partial-'  # in the names of files that are being written


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def written_whole(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which takes its place when the block ends without an error."""
    target = Path(target)
    partial = target.with_name(f'.{target.name}{PARTIAL}{uuid.uuid4().hex[:8]}')
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def written_together(target: str | Path) -> Iterator[Path]:
    """Yield the path of ``target`` in a temporary folder; all files there move beside it when the block ends well."""
    target = Path(target)
    with tempfile.TemporaryDirectory(prefix=f'.{target.stem}-', dir=target.parent) as folder:
        yield Path(folder) / target.name
        for path in sorted(Path(folder).iterdir()):
            os.replace(path, target.parent / path.name)
