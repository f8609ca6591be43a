"""Words for surgery that has taken place, and for phantoms, in descriptions and reasons of an examination."""

from __future__ import annotations

from itertools import pairwise

from node.series.vocabulary import tokens

_AFTER = frozenset(
    ["post", "pos", "after", "nach", "apres", "dopo", "despues", "depois", "efter", "etter", "na", "po", "status", "sp",
     "zn", "zustand", "stp", "tras", "esiti", "pregressa", "pregresso", "previous", "prior", "history", "после"]
)  # fmt: skip
_OPERATION = frozenset(
    ["op", "ops", "operation", "operative", "operativ", "operativo", "operatory", "operatoire", "operatorio",
     "operatoria", "operacion", "operazione", "operatie", "surgery", "surgical", "chirurgie", "cirugia", "cirurgia",
     "resection", "resektion", "reseccion", "resezione", "resectie", "exerese", "craniotomy", "kraniotomie",
     "operaci", "operace", "operacji", "operacja", "resekci",
     "resekce", "resekcji", "resekcja", "exstirpation", "tumorexstirpation", "операции", "резекции", "удаления"]
)  # fmt: skip
_DONE = (
    "postop", "posop", "intraop", "peroperat", "resected", "resecado", "resezier", "operiert", "operated", "opere",
    "craniotom", "kraniotom", "craniectom", "kraniektom", "lobectom", "lobektom", "debulk", "resektionshohle",
    "resektionskontrolle", "resektionsrand", "術後", "术后",
)  # fmt: skip
_ALONE = frozenset(["resection", "resektion", "reseccion", "resezione", "exerese"])
"""Words for an operation that may lie ahead; alone they count only beside one of `_REMAINS`."""

_REMAINS = frozenset(["cavity", "hohle", "cavite", "cavidad", "control", "kontrolle", "controle", "bed", "margin"])
_SHORT = {"s": "s/p", "sp": "s/p", "z": "z.n.", "zn": "z.n.", "st": "st."}
_AHEAD = frozenset(
    ["pre", "preop", "prae", "praop", "praeop", "before", "vor", "avant", "antes", "for", "zur", "planned",
     "planning", "planung", "geplante", "geplant", "plan", "no", "not", "without", "ohne", "kein", "keine", "sans",
     "sin", "sem", "senza", "candidate"]
)  # fmt: skip
_REACH = 3  # words between "status post" and the operation ("status post left frontal resection")
_PHANTOM = frozenset(
    ["phantom", "phantoms", "fantom", "fantome", "fantoma", "fantasma", "phantome", "fantoom", "фантом"]
)
_OF_PATIENTS = ("limb", "pain", "schmerz", "member", "membre", "dolor", "douleur", "sensation", "glied")


def surgery_word(description: str) -> str | None:
    """The word or words of this file by which ``description`` says that surgery has taken place; None if it does not.

    An operation that lies ahead, or that is denied, is none: "pre-op", "planned resection", "no craniotomy".
    """
    words = tokens(description)
    for index, word in enumerate(words):
        if _is_ahead(words[max(index - _REACH, 0) : index]) or words[index : index + 2] == ["prior", "to"]:
            continue
        done = next((stem for stem in _DONE if word.startswith(stem)), None)
        if done:
            return done
        behind = words[index + 1 : index + 2 + _REACH]
        if _is_after(words, index):
            operation = next((each for each in behind if each in _OPERATION or each.startswith(_DONE)), None)
            if operation and not _is_ahead(behind[: behind.index(operation)]):
                known = next((stem for stem in _DONE if operation.startswith(stem)), operation)
                return f"{_SHORT.get(word, word)} {known}"
        if word in _ALONE and any(each in _REMAINS for each in behind[:2]):
            return f"{word} {next(each for each in behind if each in _REMAINS)}"
    return None


def _is_after(words: list[str], index: int) -> bool:
    """True for "post", "nach", ..., and for "s/p" and "z.n.", whose letters are words of their own."""
    pair = words[index : index + 2]
    return words[index] in _AFTER or pair in (["s", "p"], ["z", "n"], ["st", "n"], ["st", "p"])


def _is_ahead(words: list[str]) -> bool:
    """True if what follows ``words`` lies ahead or is denied; "prior to" is ahead, "prior" alone is past."""
    return any(each in _AHEAD for each in words) or ("prior", "to") in pairwise(words)


def phantom_word(description: str) -> str | None:
    """The word for a phantom in ``description``; None if there is none, or if it speaks of a phantom limb."""
    words = tokens(description)
    for index, word in enumerate(words):
        behind = words[index + 1 : index + 2]
        if word in _PHANTOM and not any(each.startswith(_OF_PATIENTS) for each in behind):
            return word
    return None
