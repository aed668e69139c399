"""How long-running fits tell their caller how far they are."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, parts done, parts in all
