"""Cutting texts: exact pieces, within the limit, at the best places, the same after an edit elsewhere."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vectide.core.chunks import Chunking, chunks_of
from vectide.core.graphemes import is_inside_character


def words(text: str) -> int:
    return len(text.split())


def estimate(text: str) -> int:
    """As for a provider whose tokenizer is not at hand."""
    return -(-len(text.encode()) // 3)


COUNTERS: list[Callable[[str], int]] = [len, words, estimate]


def cut(text: str, tokens: int, overlap: int = 0, count: Callable[[str], int] = len) -> list[str]:
    chunks = list(chunks_of(text, Chunking(tokens, overlap), count))
    assert [chunk.tokens for chunk in chunks] == [count(chunk.text) for chunk in chunks]
    return [chunk.text for chunk in chunks]


def solid(text: str) -> str:
    return "".join(text.split())


#: Much white space, punctuation and joined characters; no surrogates, which texts never have.
TEXTS = (
    st.text(st.sampled_from("ab \n.。!\u200d\u0301👩👧🏽🇩🇪각ᄀ한"), max_size=300).map(str.strip).filter(bool)
)


def positions(text: str, pieces: list[str]) -> list[int]:
    """Where each of the pieces that follow each other starts."""
    at, found = 0, []
    for piece in pieces:
        at = text.index(piece, at)
        found.append(at)
        at += len(piece)
    return found


def numbered(separators: list[str]) -> str:
    """A text in which every piece is at one place only."""
    return "".join(f"{chr(0x4E00 + at)}{separator}" for at, separator in enumerate(separators)).strip()


# --- whatever the text ----------------------------------------------------------------------------------


@given(TEXTS, st.sampled_from(COUNTERS), st.integers(4, 40))
def test_chunks_are_exact_pieces_within_the_limit_that_leave_out_only_white_space(
    text: str, count: Callable[[str], int], tokens: int
) -> None:
    pieces = cut(text, tokens, count=count)
    assert cut(text, tokens, count=count) == pieces
    at = 0
    for piece in pieces:
        assert piece
        assert piece == piece.strip()
        assert count(piece) <= tokens
        start = text.index(piece, at)
        assert not text[at:start].strip()
        at = start + len(piece)
    assert at == len(text)


@given(
    st.lists(st.sampled_from(["", "", " ", ". ", "。", "\n\n", " " * 30]), min_size=1).map(numbered),
    st.sampled_from(COUNTERS),
    st.integers(4, 40),
    st.integers(1, 2),
)
def test_with_an_overlap_everything_is_still_there_and_every_chunk_brings_something_new(
    text: str, count: Callable[[str], int], tokens: int, half: int
) -> None:
    at = -1
    done = 0
    for piece in cut(text, tokens, tokens // (2 * half), count):
        assert piece == piece.strip()
        assert count(piece) <= tokens
        before, at = at, text.index(piece)
        assert at > before
        assert not text[done:at].strip()  # only white space is left out
        assert at + len(piece) > done
        done = at + len(piece)
    assert done == len(text)


@given(TEXTS, st.sampled_from([len, estimate]))
@example("one two " * 100 + "a-very-long-word-at-the-end", words)
def test_a_text_of_exactly_the_limit_is_one_chunk(text: str, count: Callable[[str], int]) -> None:
    """Case 80."""
    assert cut(text, count(text), count=count) == [text]


@given(TEXTS, st.sampled_from(COUNTERS), st.integers(4, 40), st.data())
def test_what_follows_a_chunk_does_not_depend_on_what_came_before_it(
    text: str, count: Callable[[str], int], tokens: int, data: st.DataObject
) -> None:
    pieces = cut(text, tokens, count=count)
    kept = data.draw(st.integers(0, len(pieces) - 1))
    assert cut(text[positions(text, pieces)[kept] :], tokens, count=count) == pieces[kept:]


@given(TEXTS)
def test_characters_are_cut_apart_only_when_one_alone_is_too_large(text: str) -> None:
    """Case 80."""
    longest = max(len(character) for character in characters(text))
    at = 0
    for piece in cut(text, max(4, 2 * longest)):
        at = text.index(piece, at) + len(piece)
        assert not is_inside_character(text, at)


def characters(text: str) -> list[str]:
    ends = [at for at in range(1, len(text) + 1) if not is_inside_character(text, at)]
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]


@pytest.mark.parametrize("overlap", [0, 50])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "a" + "\n" * 1_000_000 + "b",
        "\n".join("ab" * 250_000),
        "👩‍👩‍👧‍👦" * 40_000,
        "e" + "\u0301" * 1_000_000,
        "🇩🇪" * 250_000,
        "क्षि" * 250_000,
        "." * 1_000_000,
        " .\n" * 300_000 + "end",
        ("w" * 9 + " " * 100_000) * 10,
        " ".join("ab\u0301" * 100_000),
    ],
    ids="word line-ends lines family accents flags conjuncts dots mixed gaps accented-gaps".split(),
)
@pytest.mark.parametrize("counted", [estimate, words])
def test_a_megabyte_of_anything_is_cut_with_an_effort_that_grows_with_its_length(
    text: str, overlap: int, counted: Callable[[str], int]
) -> None:
    """Case 80: counted in characters that were looked at for tokens, which is where the time goes."""
    looked_at = 0

    def count(piece: str) -> int:
        nonlocal looked_at
        looked_at += len(piece)
        return counted(piece)

    text = text.strip()
    chunks = list(chunks_of(text, Chunking(500, overlap), count))
    assert all(counted(chunk.text) <= 500 for chunk in chunks)
    if not overlap:
        assert solid("".join(chunk.text for chunk in chunks)) == solid(text)
    assert looked_at < 12 * len(text)


# --- where it is cut ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("First one. Still first.\n\nSecond one. More.", ["First one. Still first.", "Second one. More."]),
        ("First line, long\nsecond. It goes on", ["First line, long", "second. It goes on"]),
        ("This is one. This is two. End.", ["This is one. This is two.", "End."]),
        ("He said “It is over.” And went", ["He said “It is over.”", "And went"]),
        ("nothing but words in this text", ["nothing but words in this", "text"]),
        (
            "これは文です。これも文です。" * 2,
            ["これは文です。これも文です。これは文です。", "これも文です。"],
        ),
        ("x" * 60, ["x" * 25, "x" * 25, "x" * 10]),
    ],
)
def test_a_chunk_ends_with_a_paragraph_line_sentence_or_word(text: str, pieces: list[str]) -> None:
    assert cut(text, 25) == pieces


def test_a_break_in_the_first_half_of_a_chunk_is_no_reason_to_make_it_short() -> None:
    assert cut("Hi.\n\nThis goes on without any other paragraph", 25)[0] == "Hi.\n\nThis goes on without"


def test_a_limit_that_is_a_number_of_words_is_used_well_whatever_the_words() -> None:
    text = " ".join("word" * (1 + at % 7) for at in range(1000))
    sizes = [words(piece) for piece in cut(text, 50, count=words)]
    assert max(sizes) <= 50
    assert min(sizes[:-1]) >= 40


def test_one_endless_word_is_cut_hard() -> None:
    """Case 80."""
    word = "abcdefghij" * 10_000
    pieces = cut(word, 500, count=estimate)
    assert "".join(pieces) == word
    assert all(estimate(piece) <= 500 for piece in pieces)
    assert len(pieces) <= 80


@pytest.mark.parametrize(
    "character",
    ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "é", "한", "각", "क्षि", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️", "\r\n"],
    ids=lambda character: unicodedata.name(character[0], "line end"),
)
def test_characters_of_several_code_points_stay_whole(character: str) -> None:
    """Case 80."""
    pieces = cut(f"x{character * 40}x", 2 * len(character) + 1)
    assert len(pieces) > 1
    assert all(character * (len(solid(piece)) // len(character) - 1) in piece for piece in pieces)
    assert not [piece for piece in pieces if piece.strip("x").replace(character, "").strip()]


def test_a_character_without_end_is_cut_all_the_same() -> None:
    pieces = cut("e" + "\u0301" * 1000, 50)
    assert "".join(pieces) == "e" + "\u0301" * 1000
    assert max(map(len, pieces)) == 50


def test_a_tokenizer_that_needs_more_tokens_for_less_text_keeps_the_limit() -> None:
    """The whole is one token; what is cut out of it is not."""

    def count(text: str) -> int:
        return sum(1 if word == "whole" else len(word) for word in text.split())

    pieces = cut("whole " * 50 + "partial " * 50, 12, count=count)
    assert solid("".join(pieces)) == "whole" * 50 + "partial" * 50
    assert all(count(piece) <= 12 for piece in pieces)


# --- overlap --------------------------------------------------------------------------------------------


def test_a_chunk_begins_with_the_last_sentence_of_the_one_before() -> None:
    text = "The first sentence. The second one. A third sentence. The last."
    assert cut(text, 36, 18) == [
        "The first sentence. The second one.",
        "The second one. A third sentence.",
        "A third sentence. The last.",
    ]


def test_a_chunk_begins_with_whole_words_where_no_sentence_starts() -> None:
    first, second, *_ = cut("alpha beta gamma delta epsilon zeta eta theta", 24, 12)
    assert (first, second) == ("alpha beta gamma delta", "gamma delta epsilon zeta")


def test_a_gap_of_white_space_that_is_too_large_ends_the_overlap() -> None:
    assert cut("one two three" + " " * 100 + "four five", 14, 7) == ["one two three", "four five"]


# --- edits ----------------------------------------------------------------------------------------------

DOCUMENT = [f"Paragraph {n} says {n * 37 % 101} things. " * (1 + n * n % 7) for n in range(60)]


@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize(
    ("edited", "new"),
    [
        (["A new one.", *DOCUMENT], 3),
        ([*DOCUMENT[:30], "changed", *DOCUMENT[31:]], 3),
        ([*DOCUMENT[:30], *DOCUMENT[31:]], 3),
        ([*DOCUMENT, "An end."], 2),
    ],
    ids=["first", "replaced", "removed", "last"],
)
def test_an_edit_changes_the_chunks_around_it(edited: list[str], new: int, overlap: int) -> None:
    """Case 78."""
    before = set(cut("\n\n".join(DOCUMENT).strip(), 300, overlap))
    after = cut("\n\n".join(edited).strip(), 300, overlap)
    assert len(after) > 20
    assert len(set(after) - before) <= new + (overlap > 0)
