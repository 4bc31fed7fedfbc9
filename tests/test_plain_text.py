"""Texts are made plain before they are embedded."""

import pytest
from hard_texts import hard_texts

from models.encoders import plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a red boat", "a red boat"),
        ("  a\tred\nboat \u3000", "a red boat"),
        ("no\u00a0break\u202fspace", "no break space"),
        ("Cafe\u0301", "Café"),
        ("🚤 boat ☀️", "boat ☀"),
        ("so\u00adft zero\u200bwidth", "soft zerowidth"),
        ("[SEP] and [other]", "[ SEP ] and [other]"),
        ("קאט אדום", "קאט אדום"),
        ("🚤", ""),
        ("x" * 600, "x" * 512),
    ],
)
def test_what_tokenisers_disagree_about_is_taken_out(text, plain):
    assert plain_text(text) == plain


def test_a_plain_text_stays_as_it_is():
    for text in hard_texts(300):
        assert plain_text(plain_text(text)) == plain_text(text)
