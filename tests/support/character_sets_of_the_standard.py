"""Names in each character set of PS3.3 C.12.1.1.2: the bytes, and the text that they stand for by the standard.

The names in several scripts are those of PS3.5 Annexes H (Japanese), I (Korean), J (UTF-8, GB18030, GBK) and K
(ISO 2022 IR 58). The letters of the single-byte sets are those of their registrations in ISO 2375.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name: Specific Character Set, the bytes of the value, and its text.

    ``iconv``: glibc's name of an encoding that reads the bytes, where DCMTK as Debian builds it does not know the set.
    """

    terms: tuple[str, ...]
    encoded: bytes
    text: str
    iconv: str = ""

    def __str__(self) -> str:
        return "+".join(self.terms) or "none"


_SINGLE_BYTE = (  # number of the registration, escape sequence to it (PS3.3 Table C.12-3), bytes, text
    ("13", b"\x1b)I", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("100", b"\x1b-A", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    ("101", b"\x1b-B", b"Wa\xb3\xeasa^Lech", "Wałęsa^Lech"),
    ("109", b"\x1b-C", b"\xa6anka\xfd", "Ĥankaŭ"),
    ("110", b"\x1b-D", b"M\xe0ri\xf1\xf0", "Māriņđ"),
    ("126", b"\x1b-F", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    ("127", b"\x1b-G", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    ("138", b"\x1b-H", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    ("144", b"\x1b-L", b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3", "Люксембург"),
    ("148", b"\x1b-M", b"\xddbrahim", "İbrahim"),
    ("166", b"\x1b-T", b"\xca\xc1\xaa\xd2\xc2", "สมชาย"),
    ("203", b"\x1b-b", b"\xa6\xbdil \xa4", "Šœil €"),
)


def _extended(escape: bytes, encoded: bytes) -> bytes:
    """Each component after the escape sequence, since a delimiter ends its effect (PS3.5 6.1.2.5.3)."""
    return b"A=" + b"^".join(escape + component for component in encoded.split(b"^"))


_H_3_1 = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
_H_3_2 = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J"
_H_1 = b"Yamada^Junko=\x1b$B;3ED\x1b(B^\x1b$B=g;R\x1b(B"  # the code of the first ideograph begins with that of "="
_I_2 = (
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="
    b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
)  # fmt: skip
_J_1 = "Wang^XiaoDong=王^小东"
_J_2 = b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab"
_K_2 = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"

NAMES = (
    Name((), b"Buc^Jerome", "Buc^Jerome"),
    Name(("ISO_IR 6",), b"Buc^Jerome", "Buc^Jerome"),
    *(Name((f"ISO_IR {number}",), encoded, text) for number, _, encoded, text in _SINGLE_BYTE),
    *(
        Name(("", f"ISO 2022 IR {number}"), _extended(escape, encoded), f"A={text}")
        for number, escape, encoded, text in _SINGLE_BYTE
    ),
    *(
        Name((f"ISO 2022 IR {number}", "ISO 2022 IR 87"), encoded + _H_3_1[12:23], f"{text}=山田")
        for number, _, encoded, text in _SINGLE_BYTE
        if number != "13"  # its Roman letters are others than ASCII: the third of the names below
    ),
    Name(("", "ISO 2022 IR 87"), _H_3_1, "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO-2022-JP"),
    Name(("ISO 2022 IR 6", "ISO 2022 IR 87"), _H_3_1, "Yamada^Tarou=山田^太郎=やまだ^たろう", "ISO-2022-JP"),
    Name(("ISO 2022 IR 6", "ISO 2022 IR 87"), _H_1, "Yamada^Junko=山田^順子", "ISO-2022-JP"),
    Name(("ISO 2022 IR 13", "ISO 2022 IR 87"), _H_3_2, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    Name(("ISO 2022 IR 6", "ISO 2022 IR 159"), b"Test=\x1b$(D0.\x1b(B", "Test=丵", "ISO-2022-JP-2"),
    Name(
        ("ISO 2022 IR 6", "ISO 2022 IR 87", "ISO 2022 IR 159"),
        b"Test=\x1b$B;3\x1b$(D0.\x1b(B", "Test=山丵", "ISO-2022-JP-2",
    ),
    Name(("", "ISO 2022 IR 149"), _I_2, "Hong^Gildong=洪^吉洞=홍^길동"),
    Name(("ISO 2022 IR 100", "ISO 2022 IR 149"), b"M\xfcller^J\xf6rg" + _I_2[12:], "Müller^Jörg=洪^吉洞=홍^길동"),
    Name(("ISO_IR 192",), _J_1.encode(), _J_1),
    Name(("GB18030",), _J_2, _J_1),
    Name(("GBK",), _J_2, _J_1),
    Name(("GB18030",), b"Wang^XiaoDong=\x81\x5c^\xd0\xa1", "Wang^XiaoDong=乗^小"),  # a code that ends as a backslash
    Name(("", "ISO 2022 IR 58"), _K_2, "Zhang^XiaoDong=张^小东"),
    Name(("ISO 2022 IR 6", "ISO 2022 IR 58"), _K_2, "Zhang^XiaoDong=张^小东"),
)  # fmt: skip

_KNOWN = {number for number, *_ in _SINGLE_BYTE} - {"203"}
READ_BY_DCMTK = {
    "", "GB18030", "GBK", *(f"ISO_IR {number}" for number in {"6", "192", *_KNOWN}),
    *(f"ISO 2022 IR {number}" for number in {"6", "58", "149", *_KNOWN} - {"100"}),
}  # fmt: skip
"""What DCMTK 3.6.7 converts if it is built with glibc's iconv: not JIS X 0208 and 0212, nor Latin-9."""
