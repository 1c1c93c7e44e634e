"""URLs as they are shown: secrets replaced, everything else as it stood, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.url import redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p?X-Amz-Signature=abc&size=3&token=t&flag", "https://h/p?X-Amz-Signature=REDACTED&size=3&token=REDACTED&flag"),
        ("https://h/p?sig=a%3D&x=1#part?sig=b", "https://h/p?sig=REDACTED&x=1#part?sig=b"),
        ("https://h/p?size=3", "https://h/p?size=3"),
        ("https://h/ä", "https://h/ä"),
        ("http://[broken?token=t", "http://[broken?token=REDACTED"),
        ("", ""),
    ],
)
def test_values_of_secret_parameters_are_replaced(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)
