"""What the site of the docs needs beyond mkdocs: the files of the repository that the pages link to.

The site is laid out like the repository with ``docs/`` lifted to its root: ``README.md`` is the home page, and a linked
file such as a config becomes a page that shows it. Links work in the repository and on the site alike.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md')
LINK = re.compile(r'(?<=\]\()((?:\.\./)?[\w./-]+)(?=[#)])')


def _outside(target: str, page: str) -> str | None:
    """The path from the repository's root of what a page links to, where that is a file not in ``docs/``."""
    path = ((ROOT if page in PAGES else ROOT / 'docs') / target).resolve()
    inside = path.is_file() and path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / 'docs')
    return path.relative_to(ROOT).as_posix() if inside else None


def on_files(files: Files, config) -> Files:
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    linked = {
        path
        for file in files.documentation_pages()
        for target in LINK.findall(file.content_string)
        if (path := _outside(target, file.src_uri)) and path not in PAGES
    }
    for path in sorted(linked):
        text = f'---\nsearch:\n  exclude: true\n---\n# {path}\n\n```{Path(path).suffix[1:] or "text"}\n'
        files.append(File.generated(config, f'{path}.md', content=text + (ROOT / path).read_text() + '```\n'))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    def on_the_site(match: re.Match) -> str:
        path = _outside(match[0], page.file.src_uri)
        if path is None:
            return match[0].removeprefix('docs/') if page.file.src_uri in PAGES else match[0]
        return path if path in PAGES else f'{path}.md'

    return markdown if page.file.src_uri.endswith('.py.md') else LINK.sub(on_the_site, markdown)
