"""Why a question of KEDA's has no answer: each kind is one gRPC status, each text one sentence."""

from typing import Literal

Kind = Literal["bad_metadata", "unknown_policy", "not_served", "nothing_known"]


class NoAnswerError(Exception):
    """There is no number to give. Never a zero instead: KEDA's own fallback and the HPA's hold apply."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
