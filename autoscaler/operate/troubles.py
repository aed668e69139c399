"""What could not be read or written, told once and not every turn."""

import logging
from collections.abc import Mapping

log = logging.getLogger("foreserve")
AGAIN_SECONDS = 600.0  # what stays, or comes and goes, is told that often


class Troubles:
    """Logs what goes wrong: when it begins, now and then while it lasts, and `over` when all is well."""

    def __init__(self, source: str, over: str = "everything is answered again") -> None:
        self._source = source
        self._over = over
        self._told_at: dict[str, float] = {}
        self._open = False  # something was told, and not yet that it is over

    def follow(self, problems: Mapping[str, str], now_seconds: float) -> None:
        """Take in one turn's problems, a sentence each by what was asked; `now_seconds` only grows."""
        recent = {w: t for w, t in self._told_at.items() if now_seconds - t < AGAIN_SECONDS}
        news = [what for what in problems if what not in recent]
        if news:
            first = news[0]
            more = f" (and {len(news) - 1} more)" if len(news) > 1 else ""
            log.warning("%s: %s: %s%s", self._source, first, problems[first], more)
        elif self._open and not problems:
            log.info("%s: %s", self._source, self._over)
        self._open = bool(problems) and (self._open or bool(news))
        self._told_at = recent | dict.fromkeys(news, now_seconds)
