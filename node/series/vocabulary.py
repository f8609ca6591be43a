"""Split series descriptions into known and unknown words.

Case, accents and separators do not matter; known words written together are split. The words are data
(``vocabulary.toml``); a site adds or overrides terms by ``[series.rules]``.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources

from node.errors import ConfigError

OTHER = "other"
_SHORTEST_JOINED = 4  # a shorter term is not recognised without its spaces: "cc" does not mean "c c"
_CACHE_LIMIT = 20_000  # bounds the memory of a node that runs for months and reads arbitrary words
_LONGEST_TOKEN = 40  # longer runs are not words; Series Description is LO, 64 characters (PS3.5 6.2)
_GLUABLE_SHORT = frozenset(
    {"t1", "t2", "3d", "2d", "fs", "gd", "km", "ax", "ir", "wi", "we", "w", "se", "iv", "wo", "no"}
)
_NUMBERED = frozenset({"t1", "t2", "pos"})  # not split from digits: T12 is a vertebra, pos50 a table position
_UNSPACED_BEGIN = "\u0e00"  # Thai; Hangul jamo (NFKD of Korean), Chinese and Japanese follow: written without spaces
_PREFIX_LETTERS = "sedvwo"  # sT2W, eFLAIR, dT1: vendor prefixes (Philips)
_NOT_DECOMPOSED = str.maketrans({"ø": "o", "đ": "d", "ł": "l", "ı": "i", "æ": "ae", "œ": "oe", "×": " "})

# "-C" after a blank and "C-" before one mean without contrast; other hyphens only separate words ("T1-3D-FFE-C")
_TOKEN = re.compile(r"(?<!\S)-c(?![^\W_])|(?<![^\W_])c-(?!\S)|[a-z0-9]+|[^\W_a-z0-9]+|[+*]")
Meaning = tuple[str, str | None, str]  # group, kind of "other", and the term as it is written

_NO_MEANING = (None, None, None)


@dataclass(frozen=True, slots=True)
class Word:
    """A word or phrase of a description. ``group`` is None for an unknown word; ``kind`` is the kind of "other".

    ``term`` is the term of the vocabulary by which the word was recognised.
    """

    text: str
    group: str | None = None
    kind: str | None = None
    term: str | None = None


def plain(text: str) -> str:
    """``text`` in lower case, without accents, with Cyrillic and Greek Т1/Т2 as Latin."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).translate(_NOT_DECOMPOSED)
    bare = "".join(character for character in folded if not unicodedata.category(character).startswith("M"))
    return re.sub(r"[тτ](?=[12])", "t", bare)


# "CE(-)", as in East Asia, or "IV-": an agent with a minus means that none was given
_MINUS_AGENTS = "|".join(
    plain(agent) for agent in ("c", "ce", "cm", "iv", "gd", "km", "contrast", "造影", "增强", "増強", "조영")
)
_AGENT_MINUS = re.compile(rf"(?<![^\W_])(?:{_MINUS_AGENTS})(?:\s*\(\s*-\s*\)|-(?!\S))")
_WITH_AT_END = re.compile(r"(?<![^\W_])w/\s*$")  # "T1 AX W/", beside a "T1 AX W/O"


def tokens(text: str) -> list[str]:
    """Runs of letters and digits of one script, ``+``, ``*`` and ``-c`` (without contrast), in order."""
    signed = _WITH_AT_END.sub(" +", _AGENT_MINUS.sub(" -c ", plain(text)))
    found = [match.group() for match in _TOKEN.finditer(signed)]
    return ["-c" if token == "c-" else token for token in found]


@dataclass(frozen=True, slots=True)
class Terms:
    """Meanings by the form of their term: whole phrases, prefixes, suffixes, and substrings of a word.

    ``prefixes``: keyed by the whole words before the prefix, usually none. ``longest``: by first word, the number of
    words of the longest term.
    """

    phrases: dict[tuple[str, ...], Meaning] = field(default_factory=dict)
    prefixes: dict[tuple[str, ...], dict[str, Meaning]] = field(default_factory=dict)
    suffixes: dict[str, Meaning] = field(default_factory=dict)
    insides: dict[str, Meaning] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)

    def add(self, meaning: Meaning) -> None:
        """Add a term; it replaces an earlier one of the same words."""
        term = meaning[2]
        words = tuple(tokens(term.strip("*")))
        opens, closes = (
            term.startswith("*"),
            term.endswith("*") and not term.endswith(" *"),
        )  # the star of "T2 *" is a word of its own, not a wildcard
        if opens and closes:
            self.insides["".join(words)] = meaning
        elif opens:
            self.suffixes["".join(words)] = meaning
        elif closes:
            self.prefixes.setdefault(words[:-1], {})[words[-1]] = meaning
        else:
            words = tuple(tokens(term))
            self.phrases[words] = meaning
        self.longest[words[0]] = max(len(words), self.longest.get(words[0], 1))
        if len(words) > 1:
            joined = "".join(words)
            if joined.isalnum() and len(joined) >= _SHORTEST_JOINED:
                self.phrases.setdefault((joined,), meaning)
        self.phrases.setdefault(words, meaning)

    def meaning(self, words: tuple[str, ...]) -> Meaning | None:
        """The meaning of exactly these words, else of a wildcard term of as many words ("pre surg*" has two)."""
        return self.phrases.get(words) or self._stem(words)

    def _stem(self, words: tuple[str, ...]) -> Meaning | None:
        last = words[-1]
        stems = self.prefixes.get(words[:-1])
        if stems:
            for end in range(len(last), 0, -1):
                if last[:end] in stems:
                    return stems[last[:end]]
        if len(words) > 1:
            return None
        for start in range(len(last)):
            if last[start:] in self.suffixes:
                return self.suffixes[last[start:]]
        return next((meaning for stem, meaning in self.insides.items() if stem in last), None)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The site's terms and the shipped ones; the site's take precedence, whatever their form.

    Make one with :func:`load_vocabulary`.
    """

    site: Terms
    shipped: Terms
    unspaced: tuple[str, ...] = ()
    _pieces: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)
    _single: dict[str, Meaning | None] = field(default_factory=dict, repr=False, compare=False)

    def words(self, text: str) -> tuple[Word, ...]:
        """The description as known and unknown words, longest phrase first."""
        parts = [piece for token in tokens(text) for piece in self._split(token)]
        found: list[Word] = []
        index = 0
        while index < len(parts):
            word, used = self._longest_phrase(parts, index)
            found.append(word)
            index += used
        return tuple(found)

    def _longest_phrase(self, parts: list[str], index: int) -> tuple[Word, int]:
        first = parts[index]
        longest = max(self.shipped.longest.get(first, 1), self.site.longest.get(first, 1))
        for length in range(min(longest, len(parts) - index), 1, -1):
            words = tuple(parts[index : index + length])
            meaning = self.site.meaning(words) or self.shipped.meaning(words)
            if meaning:
                return Word(" ".join(words), *meaning), length
        return Word(first, *(self._meaning(first) or ())), 1

    def _meaning(self, word: str) -> Meaning | None:
        if word not in self._single:
            if len(self._single) >= _CACHE_LIMIT:
                self._single.clear()
            self._single[word] = self.site.meaning((word,)) or self.shipped.meaning((word,))
        return self._single[word]

    def _whole(self, word: str) -> Meaning | None:
        return self.site.phrases.get((word,)) or self.shipped.phrases.get((word,))

    def _split(self, token: str) -> tuple[str, ...]:
        if token not in self._pieces:
            if len(self._pieces) >= _CACHE_LIMIT:
                self._pieces.clear()
            self._pieces[token] = self._pieces_of(token)
        return self._pieces[token]

    def _pieces_of(self, token: str) -> tuple[str, ...]:
        if self._whole(token) or self.site.meaning((token,)) or len(token) > _LONGEST_TOKEN:
            return (token,)
        if max(token) >= _UNSPACED_BEGIN:
            return self._split_unspaced(token)
        glued = self._unglue(token, 0, "")
        if glued is not None:
            return glued
        begins_with_weighting = re.fullmatch(r"(t[12])([a-z].*)", token)
        if begins_with_weighting and not self._meaning(token):
            return (begins_with_weighting[1], *self._split(begins_with_weighting[2]))
        return (token,)

    def _split_unspaced(self, token: str) -> tuple[str, ...]:
        pieces = re.split("(" + "|".join(map(re.escape, self.unspaced)) + ")", token)
        return tuple(piece for piece in pieces if piece)

    def _unglue(self, token: str, start: int, previous: str) -> tuple[str, ...] | None:
        """``token[start:]`` as known words, longest first, or None; digits may follow a word not in `_NUMBERED`."""
        if start == len(token):
            return ()
        for end in range(len(token), start, -1):
            piece = token[start:end]
            if not self._may_be_glued(piece, previous, is_first=start == 0, is_last=end == len(token)):
                continue
            rest = self._unglue(token, end, piece)
            if rest is not None and not (start == 0 and len(piece) == 1 and not self._is_weighting(rest)):
                return (piece, *rest)
        return None

    def _may_be_glued(self, piece: str, previous: str, *, is_first: bool, is_last: bool) -> bool:
        if piece.isdigit():
            return not is_first and not previous.isdigit() and previous not in _NUMBERED
        if piece == "c":
            group = (self._whole(previous) or _NO_MEANING)[0]
            return (
                is_last
                and (group in ("sequence", "T1", "T1_sequence", "dixon", "gradient_echo") or previous in ("3d", "iso"))
                and previous != "se"
            )
        if len(piece) == 1 and is_first:
            return piece in _PREFIX_LETTERS and not is_last
        return (len(piece) > 2 or piece in _GLUABLE_SHORT) and self._whole(piece) is not None

    def _is_weighting(self, pieces: tuple[str, ...]) -> bool:
        pieces = pieces[1:] if pieces[:1] in (("3d",), ("2d",)) else pieces
        group, kind, _ = (pieces and self._whole(pieces[0])) or _NO_MEANING
        return group in ("T1", "T2", "FLAIR") or kind == "short-tau inversion recovery"


def load_vocabulary(
    extra: Mapping[str, tuple[str, ...]] | None = None, without: frozenset[str] = frozenset()
) -> Vocabulary:
    """The shipped vocabulary, with the site's own terms (``[series.rules]``: group → terms) taking precedence.

    ``without``: shipped terms, as they are written, to leave out, so that their effect can be measured.

    Raises:
        ConfigError: a group that does not exist, or a term without any letter; names the key.
    """
    shipped = tomllib.loads(resources.files("node.series").joinpath("vocabulary.toml").read_text(encoding="utf-8"))
    vocabulary = Vocabulary(Terms(), Terms())
    for kind, terms in shipped["other"].items():
        _add_all(vocabulary.shipped, OTHER, kind, (term for term in terms if term not in without))
    for group, terms in shipped["terms"].items():
        _add_all(vocabulary.shipped, group, None, (term for term in terms if term not in without))
    for group, terms in (extra or {}).items():
        if group not in shipped["terms"] and group != OTHER:
            groups = ", ".join([*shipped["terms"], OTHER])
            raise ConfigError(f"series.rules.{group}: unknown group; the groups are {groups}")
        empty = next((term for term in terms if not tokens(term.strip("*"))), None)
        if empty is not None:
            raise ConfigError(f"series.rules.{group}: '{empty}' holds no word")
        _add_all(vocabulary.site, group, "site rule" if group == OTHER else None, terms)
    known = {words[0] for words in (*vocabulary.site.phrases, *vocabulary.shipped.phrases)}
    unspaced = sorted((word for word in known if max(word) >= _UNSPACED_BEGIN), key=lambda word: (-len(word), word))
    return replace(vocabulary, unspaced=tuple(unspaced))


def _add_all(terms: Terms, group: str, kind: str | None, written: Iterable[str]) -> None:
    for term in written:
        terms.add((group, kind, term))
