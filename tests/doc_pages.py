"""The pages of the documentation, and what is in them: links, headings, blocks of code, commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
PROGRAM = "iscale"
ENDS = ("|", "&&", "||", ";", "&", ">", "2>&1", ">>")
"""Words of a shell after which a command has ended."""
BEFORE = (*ENDS, "exec", "nice", "nohup")
"""Words after which a command may begin."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind it, its text, and the line of the page that it begins in."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def read(page: str) -> str:
    """Text of a page, named from the project's root on."""
    return (ROOT / page).read_text()


def blocks(page: str, *languages: str) -> list[Block]:
    """Blocks of some languages, in order."""
    text = read(page)
    return [
        Block(found[1], tuple(found[2].split()), found[3], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


def prose(page: str) -> str:
    """A page without its blocks."""
    return FENCE.sub("", read(page))


def anchors(page: str) -> set[str]:
    """What a link may name of a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: str) -> list[tuple[str, str]]:
    """Targets of a page's links to files, and the heading that each names, or an empty text."""
    found = re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", prose(page))
    return [(target, heading) for target, heading in found if target or heading]


def commands(text: str) -> list[list[str]]:
    """Words of the commands of this program in a shell's text, without its own name.

    >>> commands("# a comment: iscale run\\nexec iscale run P --seed 1 | tee log  # why\\ntmux new -s iscale")
    [['run', 'P', '--seed', '1']]
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == PROGRAM and (start == 0 or words[start - 1] in BEFORE):
                rest = words[start + 1 :]
                found.append(rest[: next((i for i, one in enumerate(rest) if one in ENDS), len(rest))])
    return found
