"""What the golden walks decide today is what was committed."""

import pytest
from walks import EXPECTED, WALKS, text_of


@pytest.mark.parametrize("each", WALKS, ids=lambda w: w.__name__)
def test_golden(each) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    expected = (EXPECTED / f"{each.__name__}.jsonl").read_text()
    assert text_of(each) == expected, "run python tests/golden/walks.py and read the difference"
