"""Cursor over the tokens of one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mks_check.migrations._sql_script import SqlToken
from mks_hardening.exceptions import MksHardeningError

__all__ = ["TokenCursor", "UnreadableStatementError"]

_OPENING: Final = frozenset("([")
_CLOSING: Final = frozenset(")]")


class UnreadableStatementError(MksHardeningError, ValueError):
    """The statement is not one that the linter knows."""


class TokenCursor:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[SqlToken]) -> None:
        self._tokens = tokens
        self._position = 0

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return self._position >= len(self._tokens)

    def peek(self, ahead: int = 0) -> SqlToken | None:
        """Return a later token without consuming it."""
        position = self._position + ahead
        return self._tokens[position] if position < len(self._tokens) else None

    def comes(self, *words: str) -> bool:
        """Whether these keywords or symbols come next."""
        for index, word in enumerate(words):
            token = self.peek(index)
            if token is None or token.kind in {"name", "value"} or token.key != word:
                return False
        return True

    def comes_one_of(self, *words: str) -> bool:
        """Whether one of these keywords or symbols comes next."""
        return any(self.comes(word) for word in words)

    def accept(self, *words: str) -> bool:
        """Consume these keywords or symbols if they come next."""
        if not self.comes(*words):
            return False
        self._position += len(words)
        return True

    def accept_one_of(self, *words: str) -> str:
        """Consume one of these keywords and return it; empty if none comes next."""
        return next((word for word in words if self.accept(word)), "")

    def expect(self, *words: str) -> None:
        """Consume these keywords or symbols.

        Raises:
            UnreadableStatementError: something else comes.
        """
        if not self.accept(*words):
            raise UnreadableStatementError(" ".join(words).upper())

    def take(self) -> SqlToken:
        """Consume one token.

        Raises:
            UnreadableStatementError: nothing is left.
        """
        token = self.peek()
        if token is None:
            raise UnreadableStatementError("the end")
        self._position += 1
        return token

    def name(self) -> str:
        """Consume an identifier.

        Raises:
            UnreadableStatementError: something else comes.
        """
        token = self.take()
        if token.kind not in {"word", "name"}:
            raise UnreadableStatementError(token.text)
        return token.key

    def qualified_name(self) -> str:
        """Consume a name with its schema; ``public`` is left out."""
        parts = [self.name()]
        while self.accept("."):
            parts.append(self.name())
        return ".".join(parts[1:] if parts[0] == "public" and len(parts) == 2 else parts)

    def names(self) -> tuple[str, ...]:
        """Consume qualified names separated by commas."""
        found = [self.qualified_name()]
        while self.accept(","):
            found.append(self.qualified_name())
        return tuple(found)

    def group(self) -> tuple[SqlToken, ...]:
        """Consume a parenthesis and return what is inside.

        Raises:
            UnreadableStatementError: there is none, or it is not closed.
        """
        self.expect("(")
        inside = self.until_depth_zero()
        self.expect(")")
        return inside

    def until_depth_zero(self, *words: str, at_least: int = 0) -> tuple[SqlToken, ...]:
        """Consume tokens up to a comma, a closing parenthesis or one of the keywords, outside of parentheses.

        Without keywords, commas are consumed too.
        """
        start, depth = self._position, 0
        while (token := self.peek()) is not None:
            if depth == 0:
                if token.text in _CLOSING:
                    break
                taken = self._position - start
                if words and (token.text == "," or (token.is_word(*words) and taken >= at_least)):
                    break
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
            self._position += 1
        return tuple(self._tokens[start : self._position])

    def until_comma(self) -> tuple[SqlToken, ...]:
        """Consume tokens up to a comma or a closing parenthesis, outside of parentheses."""
        return self.until_depth_zero("")

    def rest(self) -> tuple[SqlToken, ...]:
        """Consume everything that is left."""
        start, self._position = self._position, len(self._tokens)
        return tuple(self._tokens[start:])

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            UnreadableStatementError: something is left.
        """
        token = self.peek()
        if token is not None:
            raise UnreadableStatementError(token.text)
