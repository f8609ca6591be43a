from __future__ import annotations

import tomllib
from collections import Counter
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ConfigError
from node.series.vocabulary import load_vocabulary, tokens

VOCABULARY = load_vocabulary()


def groups(vocabulary, text):
    return [word.group for word in vocabulary.words(text)]


def test_no_term_is_listed_twice():
    """A term of the shipped vocabulary belongs to one group only, so that its meaning does not depend on order."""
    shipped = tomllib.loads(resources.files("node.series").joinpath("vocabulary.toml").read_text(encoding="utf-8"))
    written = [
        (*tokens(term), term.startswith("*"), term.endswith("*"))
        for table in shipped.values()
        for terms in table.values()
        for term in terms
    ]
    assert [term for term, count in Counter(written).items() if count > 1] == []


@pytest.mark.parametrize("text", ["mprage", "MP RAGE", "mp_rage", "3DMPRAGE", "Mprage-2"])
def test_a_phrase_is_found_however_it_is_written(vocabulary, text):
    """Apart, together, glued to a known word: it is the same term."""
    assert "T1_sequence" in groups(vocabulary, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("T1SPIRC", ["t1", "spir", "c"]),
        ("FSGD", ["fs", "gd"]),
        ("T2FLAIR", ["t2", "flair"]),
        ("sT2W", ["s", "t2w"]),
        ("t12", ["t12"]),
        ("effort1", ["effort1"]),
        ("cs5", ["cs5"]),
    ],
)
def test_glued_words_are_taken_apart_only_when_all_parts_are_known(vocabulary, text, expected):
    """A token is split into known words completely, or not at all."""
    assert [word.text for word in vocabulary.words(text)] == expected


def test_a_hyphen_in_the_place_of_a_sign_is_a_minus():
    """' -C' and 'C- ' mean without contrast, a hyphen between words is a separator."""
    assert tokens("T1 -C") == ["t1", "-c"]
    assert tokens("T1 C-") == ["t1", "-c"]
    assert tokens("T1-3D-FFE-C") == ["t1", "3d", "ffe", "c"]


def test_a_site_rule_overrides_the_shipped_meaning():
    """A site's own term wins over the shipped one, and is found in any writing."""
    own = load_vocabulary({"T1c": ("haus kontrolle",), "neutral": ("km",), "other": ("xyz*",)})
    assert groups(own, "HAUS-Kontrolle") == ["T1c"]
    assert groups(own, "KM") == ["neutral"]
    assert [word.kind for word in own.words("xyzzy")] == ["site rule"]


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ({"before": ("km*",)}, "T1 KM", ["T1", "before"]),
        ({"T2": ("flair*",)}, "FLAIR", ["T2"]),
        ({"other": ("*mprage*",)}, "T1 MPRAGE", ["T1", "other"]),
        ({"other": ("*rage",)}, "3DMPRAGE", ["other"]),
        ({"neutral": ("post*",)}, "T1 postkontrast", ["T1", "neutral"]),
        ({"neutral": ("post",)}, "T1 post KM", ["T1", "neutral", "agent"]),
        ({"T1": ("增强",)}, "T1增强", ["T1", "T1"]),
    ],
)
def test_a_site_rule_of_any_form_goes_before_the_shipped_terms(rules, text, expected):
    """A site's stem is stronger than a shipped word that fits exactly."""
    assert groups(load_vocabulary(rules), text) == expected


@pytest.mark.parametrize(
    ("rules", "message"), [({"T3": ("a",)}, "series.rules.T3"), ({"T1": ("--",)}, "series.rules.T1")]
)
def test_a_wrong_site_rule_names_its_key(rules, message):
    """An unknown group or a term without a word is a ConfigError naming the key."""
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(rules)


@given(st.text(max_size=100))
def test_any_text_becomes_words(text):
    """No string crashes the tokeniser, and no word is empty."""
    assert all(word.text for word in VOCABULARY.words(text))
