"""No string of the page is missing in a language, and each translation fits its string."""

import re

import pytest

from scripts.translations import forms_of, marked, updated
from search_app.web.languages import LANGUAGES, catalogue_path, read_catalogue

OTHERS = sorted(set(LANGUAGES) - {"en"})
PLACE = re.compile(r"%\(\w+\)s|%%|\{\w*\}")
TAG = re.compile(r"</?\w+>|`[^`]*`")


@pytest.fixture(scope="module", params=OTHERS)
def catalogue(request):
    """The strings that are marked now, with a language's translations."""
    return updated(request.param)


def test_every_string_is_translated_and_none_is_uncertain(catalogue):
    messages = [message for message in catalogue if message.id]
    assert len(messages) == len(marked()) > 200
    missing = [message.id for message in messages if not all(forms_of(message))]
    language = catalogue.locale_identifier
    assert not missing, f"run `make translations`, and translate them in {catalogue_path(language)}"
    written = read_catalogue(language)
    assert not [message.id for message in written if message.id and message.fuzzy]


def test_a_translation_has_the_values_and_the_markup_of_its_string(catalogue):
    """A quotation mark would end the attribute that a string stands in."""
    for message in (each for each in catalogue if each.id):
        originals = message.id if isinstance(message.id, tuple) else (message.id,)
        *_, original = originals
        values = set(PLACE.findall(original))
        optional = values - set(PLACE.findall(originals[0]))  # such as the number of a singular
        for number, form in enumerate(forms_of(message)):
            found = set(PLACE.findall(form))
            assert found == values or (number == 0 and found == values - optional), (message.id, form)
            assert sorted(TAG.findall(form)) == sorted(TAG.findall(original)), (message.id, form)
            assert ('"' in form, "<" in form) == ('"' in original, "<" in original), (message.id, form)
            assert form == form.strip(), form


def test_the_catalogue_is_as_it_would_be_written_again(catalogue):
    written = read_catalogue(catalogue.locale_identifier)
    assert {(each.context, each.id) for each in written} == {(each.context, each.id) for each in catalogue}
