"""The local node's tokenisers, against ids that were worked out by hand from Elasticsearch's rules."""

import pytest
from hard_texts import hard_texts
from model_folders import vocabulary

from es_config.local_node.ml.tokenizer import KINDS, WordPieceTokenizer
from es_config.local_node.rest import RestError
from models.encoders import plain_text

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIALS, "boat", "##s", "red", "sea", "cafe", "café", "!", ".", "[", "sep", "]", "海", "the"]
UNKNOWN, START, END = 1, 2, 3


def tokenizer(**options: object) -> WordPieceTokenizer:
    """Return a BERT tokeniser with the vocabulary above."""
    return WordPieceTokenizer(VOCABULARY, kind=KINDS["bert"], **options)


def words(text: str, **options: object) -> list[str]:
    """Return the tokens between the special ones."""
    ids = tokenizer(**options).encode(text).ids
    assert (ids[0], ids[-1]) == (START, END)
    return [VOCABULARY[number] for number in ids[1:-1]]


def test_words_are_cut_into_the_longest_known_pieces():
    assert words("boats red") == ["boat", "##s", "red"]


def test_a_word_with_any_unknown_part_is_unknown_as_a_whole():
    assert words("boatx red") == ["[UNK]", "red"]


def test_punctuation_and_ideographs_stand_alone():
    assert words("red!boat.海sea") == ["red", "!", "boat", ".", "海", "sea"]


def test_lower_casing_strips_accents_and_is_off_by_default():
    assert words("RED CAFÉ", do_lower_case=True) == ["red", "cafe"]
    assert words("RED café") == ["[UNK]", "café"]


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "🚤", "\u200d\ufeff"])
def test_a_text_without_words_is_only_the_special_tokens(text):
    assert tokenizer().encode(text).ids == (START, END)


def test_emoji_and_control_characters_are_dropped():
    assert words("re\x00d 🚤bo\u200bat🚤") == ["red", "boat"]


def test_a_no_break_space_does_not_separate_words():
    assert words("red\u00a0boat red\u3000boat") == ["[UNK]", "red", "boat"]


def test_only_the_mask_is_special_within_a_text():
    assert words("[MASK]! [sep]", do_lower_case=True) == ["[MASK]", "!", "[", "sep", "]"]


def test_words_of_more_than_100_letters_are_unknown():
    assert words("s" * 101) == ["[UNK]"]


def test_a_chunk_is_cut_after_512_letters():
    assert words("x" * 512 + "boat") == ["[UNK]", "boat"]


def test_long_texts_are_cut_and_marked():
    tokens = tokenizer(max_sequence_length=5).encode("red boat sea red boat")
    assert tokens.ids == (START, *(VOCABULARY.index(word) for word in ("red", "boat", "sea")), END)
    assert tokens.is_truncated
    assert not tokenizer(max_sequence_length=5).encode("red boat sea").is_truncated


def test_a_long_text_is_refused_where_truncation_is_off():
    with pytest.raises(
        RestError, match=r"tokenized input length \[7\] exceeds the maximum sequence length \[5\]"
    ):
        tokenizer(max_sequence_length=5).encode("red boat sea red boat", truncate="none")


def test_special_tokens_can_be_left_out():
    assert tokenizer(with_special_tokens=False).encode("red boat").ids == (7, 5)


@pytest.mark.parametrize("missing", ["[UNK]", "[PAD]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(missing):
    short = [word for word in VOCABULARY if word != missing]
    with pytest.raises(RestError, match="stored vocabulary is missing required") as refused:
        WordPieceTokenizer(short, kind=KINDS["bert"])
    assert refused.value.status == 409


def test_mpnet_has_special_tokens_of_its_own():
    kind = KINDS["mpnet"]
    vocabulary = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "red"]
    assert WordPieceTokenizer(vocabulary, kind=kind).encode("red <mask> [SEP]").ids == (0, 5, 4, 3, 3, 3, 2)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_it_agrees_with_the_reference_implementation_on_plain_texts(tmp_path, do_lower_case):
    from transformers import BertTokenizerFast

    spelled = [*VOCABULARY, *vocabulary()[len(SPECIALS) :], *"éèñßאק赤"]
    known = list(dict.fromkeys(spelled))
    (tmp_path / "vocab.txt").write_text("\n".join(known) + "\n")
    reference = BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=do_lower_case)
    mine = WordPieceTokenizer(known, kind=KINDS["bert"], do_lower_case=do_lower_case, max_sequence_length=64)
    for text in map(plain_text, hard_texts(1000)):
        expected = reference(text, truncation=True, max_length=64)["input_ids"]
        assert list(mine.encode(text).ids) == expected, text
