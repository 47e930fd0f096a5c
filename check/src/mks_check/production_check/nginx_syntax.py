"""nginx's configuration language: a tokenizer and a tree of directives, with includes resolved among given files.

Embedded code of modules (``content_by_lua_block``) is skipped up to its closing brace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Final, NamedTuple

from mks_hardening.exceptions import MksHardeningError

__all__ = ["Directive", "NginxSyntaxError", "NginxTree", "Scope", "parse_nginx"]

_MOST_DEPTH: Final = 40
_MOST_DIRECTIVES: Final = 50_000
#: Files of the distribution that hold nothing to judge.
_IGNORED: Final = (
    "mime.types",
    "fastcgi.conf",
    "fastcgi_params",
    "uwsgi_params",
    "scgi_params",
    "proxy_params",
)
_INHERITED_UNTIL_SET: Final = ("add_header", "proxy_set_header")


class NginxSyntaxError(MksHardeningError, ValueError):
    """A file does not have the syntax of nginx; ``line`` says where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """One directive.

    Attributes:
        name: its name.
        args: its arguments, without quotes.
        file: path of its file.
        line: its line.
        block: directives inside its braces; ``None`` without braces.
    """

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = None

    @property
    def text(self) -> str:
        """The directive on one line, without its block."""
        return " ".join((self.name, *self.args))


class Scope(NamedTuple):
    """A block and the blocks around it, the outermost one first."""

    blocks: tuple[Directive, ...]

    @property
    def block(self) -> Directive:
        """The block itself."""
        return self.blocks[-1]

    def own(self, name: str) -> list[Directive]:
        """Return the directives of this name in the block itself."""
        return [each for each in self.block.block or () if each.name == name]

    def effective(self, name: str) -> list[Directive]:
        """Return the directives of this name that apply here: those of the innermost block that has any."""
        for depth in range(len(self.blocks), 0, -1):
            if found := Scope(self.blocks[:depth]).own(name):
                return found
        return []

    def value(self, name: str) -> str:
        """Return the arguments of the last such directive that applies here; empty if there is none."""
        found = self.effective(name)
        return " ".join(found[-1].args) if found else ""

    def enclosing(self, name: str) -> Scope | None:
        """Return the innermost block of this name around or at this place."""
        for depth in range(len(self.blocks), 0, -1):
            if self.blocks[depth - 1].name == name:
                return Scope(self.blocks[:depth])
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxTree:
    """All nginx files.

    Attributes:
        root: the files that no other one includes, as one block without a name.
        problems: what could not be read: file and reason.
    """

    root: Directive
    problems: tuple[tuple[str, str], ...] = field(default=())

    def scopes(self, *names: str) -> Iterator[Scope]:
        """Yield every block of these names, from the outside in."""
        for scope in _walk(Scope((self.root,))):
            if scope.block.name in names:
                yield scope

    def every(self, *names: str) -> Iterator[tuple[Scope, Directive]]:
        """Yield every directive of these names with the block that it stands in."""
        for scope in _walk(Scope((self.root,))):
            for directive in scope.block.block or ():
                if directive.name in names:
                    yield scope, directive


def _walk(scope: Scope) -> Iterator[Scope]:
    yield scope
    for directive in scope.block.block or ():
        if directive.block is not None:
            yield from _walk(Scope((*scope.blocks, directive)))


def parse_nginx(files: Mapping[str, str], others: Mapping[str, str] | None = None) -> NginxTree:
    """Return the tree of nginx files.

    Args:
        files: texts by path.
        others: further files that may be included.
    """
    parsed: dict[str, tuple[Directive, ...]] = {}
    problems: list[tuple[str, str]] = []
    every = {**(others or {}), **files}

    def directives_of(path: str) -> tuple[Directive, ...]:
        if path not in parsed:
            try:
                parsed[path] = _parse(every[path], path)
            except NginxSyntaxError as error:
                problems.append((path, f"line {error.line}: {error}"))
                parsed[path] = ()
        return parsed[path]

    included = {path for file in files for path in _included_by(directives_of(file), every, file)}
    budget = _Budget(_MOST_DIRECTIVES)

    def expanded(block: tuple[Directive, ...], depth: int) -> Iterator[Directive]:
        for directive in block:
            if not budget.spend():
                return
            if directive.name == "include" and directive.block is None:
                yield from included_at(directive, depth)
            elif directive.block is None or depth > _MOST_DEPTH:
                yield directive
            else:
                yield Directive(
                    name=directive.name,
                    args=directive.args,
                    file=directive.file,
                    line=directive.line,
                    block=tuple(expanded(directive.block, depth + 1)),
                )

    def included_at(directive: Directive, depth: int) -> Iterator[Directive]:
        pattern = directive.args[0] if directive.args else ""
        found = _matching(pattern, every)
        if not found and not pattern.endswith(_IGNORED) and "*" not in pattern:
            problems.append(
                (directive.file, f"line {directive.line}: include {pattern} is not among the files")
            )
        if depth > _MOST_DEPTH:
            problems.append((directive.file, f"line {directive.line}: files include each other"))
            return
        for path in found:
            yield from expanded(directives_of(path), depth + 1)

    roots = [path for path in files if path not in included] or list(files)
    whole = tuple(directive for path in roots for directive in expanded(directives_of(path), 0))
    if budget.exhausted:
        problems.append(("nginx", f"more than {_MOST_DIRECTIVES} directives"))
    root = Directive(name="", args=(), file=roots[0] if roots else "", line=1, block=whole)
    return NginxTree(root=root, problems=tuple(dict.fromkeys(problems)))


class _Budget:
    def __init__(self, most: int) -> None:
        self._left = most
        self.exhausted = False

    def spend(self) -> bool:
        self._left -= 1
        self.exhausted = self.exhausted or self._left < 0
        return not self.exhausted


def _included_by(block: tuple[Directive, ...], every: Mapping[str, str], of: str) -> Iterator[str]:
    for directive in block:
        if directive.name == "include" and directive.args:
            yield from (path for path in _matching(directive.args[0], every) if path != of)
        if directive.block is not None:
            yield from _included_by(directive.block, every, of)


def _matching(pattern: str, files: Mapping[str, str]) -> list[str]:
    """Return the files that an include names: by the end of the path, or the only one with this file name."""
    if not pattern:
        return []
    relative = pattern.lstrip("/")
    found = [path for path in sorted(files) if fnmatch(f"/{path.lstrip('/')}", f"*/{relative}")]
    if found or "*" in pattern:
        return found
    name = relative.rpartition("/")[2]
    alike = [path for path in files if path.rpartition("/")[2] == name]
    return alike if len(alike) == 1 else []


def _parse(text: str, file: str) -> tuple[Directive, ...]:
    """Return the directives of one file.

    Raises:
        NginxSyntaxError: braces or quotes do not match, or a directive has no end.
    """
    stack: list[tuple[list[str], int, list[Directive]]] = [([], 1, [])]
    words: list[str] = []
    start = 1
    tokens = _tokens(text)
    for word, line, quoted in tokens:
        if quoted or word not in {";", "{", "}"}:
            start = start if words else line
            words.append(word)
        elif word == ";":
            if words:
                stack[-1][2].append(Directive(name=words[0], args=tuple(words[1:]), file=file, line=start))
            words = []
        elif word == "{":
            if not words:
                raise NginxSyntaxError("a block without a name", line)
            if words[0].endswith("_by_lua_block"):
                raise NginxSyntaxError("embedded Lua is not read", line)
            if len(stack) > _MOST_DEPTH:
                raise NginxSyntaxError("too many nested blocks", line)
            stack.append((words, start, []))
            words = []
        else:
            if words:
                raise NginxSyntaxError(f"no ';' after {words[0][:40]}", line)
            if len(stack) == 1:
                raise NginxSyntaxError("an unexpected '}'", line)
            name, begun, inner = stack.pop()
            stack[-1][2].append(
                Directive(name=name[0], args=tuple(name[1:]), file=file, line=begun, block=tuple(inner))
            )
    if words or len(stack) > 1:
        raise NginxSyntaxError("the end comes before ';' or '}'", text.count("\n") + 1)
    return tuple(stack[0][2])


def _tokens(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yield words with their line and whether they were quoted."""
    place, line, size = 0, 1, len(text)
    while place < size:
        char = text[place]
        if char.isspace():
            line += char == "\n"
            place += 1
        elif char == "#":
            end = text.find("\n", place)
            place = size if end < 0 else end
        elif char in ";{}":
            yield char, line, False
            place += 1
        elif char in "\"'":
            begun, value = line, list[str]()
            place += 1
            while place < size and text[place] != char:
                if text[place] == "\\" and place + 1 < size:
                    value.append(text[place] if text[place + 1] not in "\"'\\" else "")
                    place += 1
                line += text[place] == "\n"
                value.append(text[place])
                place += 1
            if place >= size:
                raise NginxSyntaxError("a quote without end", begun)
            place += 1
            yield "".join(value), begun, True
        else:
            end = place
            while end < size and not text[end].isspace() and text[end] not in ";{}":
                if text[end] == "\\":
                    end += 1
                elif text[end : end + 2] == "${":
                    close = text.find("}", end)
                    end = size if close < 0 else close
                end += 1
            yield text[place:end], line, False
            place = end
