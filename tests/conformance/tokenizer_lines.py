"""Lines that tokenizers stumble over: many scripts, code, digits, runs of spaces, emoji, marks, controls.

A short hand-written stock, and combinations of its pieces drawn with a fixed seed: what goes wrong in tokenizers mostly
goes wrong where two kinds of character meet.
"""

from __future__ import annotations

import random

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they'LL say it's what WE'VE got; you'd think he'S right, wouldn't you?",
    "HTTPServer parsesJSONAndXMLFiles into snake_case, kebab-case and SCREAMING_CASE.",
    "Phone +49 (0)30 1234567, pi is 3.14159265358979, year 2024, 1,000,000 and 0x7fff_ffff, ٣٤٥ १२३ ①②③ Ⅷ ½ x².",
    "Über den Wolken muß die Freiheit wohl grenzenlos sein, ÄÖÜ STRASSE, straße.",
    "L'été, où l’on s’en va à la mer, ÇA VA? Œuvre, naïve, aujourd'hui.",
    "¿Qué pasó, señor Ñandú? ¡Olé!",
    "Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń, ŁÓDŹ.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. МОСКВА Санкт-Петербург.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΑΘΗΝΑ, Ὅμηρος.",
    "נְקֻדּוֹת: שלום עולם, בְּרֵאשִׁית בָּרָא.",
    "اَلْعَرَبِيَّةُ لغة جميلة، مرحبا بالعالم؟ ۱۲۳",
    "नमस्ते दुनिया, क्या हाल है? हिन्दी में लिखना।",
    "আমার সোনার বাংলা, தமிழ் மொழி, తెలుగు భాష, ಕನ್ನಡ.",
    "สวัสดีครับ ภาษาไทยไม่มีช่องว่าง ที่นี่ ๑๒๓",
    "日本語のテストです。カタカナ、ひらがな、漢字「括弧」！ｆｕｌｌ－ｗｉｄｔｈ　ＡＢＣ１２３",
    "你好，世界！今天天气很好。中文ABC混排123测试。",
    "안녕하세요 세계! 한국어 테스트입니다. ㄱㄴㄷ",
    "Xin chào thế giới, tiếng Việt có dấu: ế ộ ữ Ở.",
    "e\u0301 a\u0308 n\u0303 o\u0302\u0323 Z\u0351\u036b\u0343 \u1100\u1161\u11a8 \u212b \u2126 \ufb01",
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 ☕️ 1️⃣ ❤️‍🔥 😀😃 🧑🏿‍🚀",
    "def f(x: int = 0) -> str:\n    return f\"{x!r}\\n\"  # comment\n\n\nclass A(B):\n\tpass\n",
    "for (int i=0;i<n;++i) { a[i] += b[i]*c; } // done\r\n\r\n#include <stdio.h>\r\n",
    "SELECT * FROM t WHERE a>=1 AND b!='x'; -- ok\n<div class=\"a\">&nbsp;</div><br/>\n",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$ ∑∏∞≠≤≥ €£¥ ©®™ §¶",
    "https://example.com/path/to?query=a&b=%20c#frag user@host.org C:\\Users\\x ../../etc",
    "{\"key\": [1, 2.5e-3, null, true], \"s\": \"a\\u00e9\"}",
    "   leading, trailing   ", "tabs\t\tand  two   three    four     spaces",
    " ", "  ", "\n", "\n\n", " \n \n", "\t", "\r\n",
    "a \n b  \n\n  c\t\n\td",
    "word\u00a0nbsp\u2003em\u3000ideographic\u2009thin\u202fnarrow\u2028line\u2029para\u0085nel",
    "zero\u200bwidth\u200cnon\u200djoiner\ufeffbom\u00adsoft\u2060join",
    "bell\x07 esc\x1b[0m del\x7f unit\x1f file\x1c c1\x80\x9f vt\x0b ff\x0c",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒎𝒂𝒕𝒉 𐌀𐌁 𒀀𒁀 𓀀 🀄 𠮷野家", "\ue000private \ufffd \uffff \U0010ffff",
    "!!! ... ?!?! --- === ### *** ((())) [[]] {{}} <<>> \"\"\" ''' ``` ~~~ ///",
    "'s 't 're 've 'm 'll 'd 'S 'T ' s 'x ''s",
)  # fmt: skip

PIECES = (
    *"aZéÉßжЖλΛشकी的あ가",
    *("can't", "I'LL", "HelloWorld", "mixedÇase", "ÀÉ", "hé", "Ünï"),
    *("ЯБлоко", "का", "ที่", "日本", "e\u0301", "ं", "ǅ", "ʰ", "ª"),
    *("1", "12", "123", "1234", "1234567", "٣", "Ⅷ", "²", "½", "3.14"),
    *(" ", "  ", "   ", "       ", "\t", "\n", "\n\n", "\r\n", " \n", "\u00a0", "\u3000", "\u200b", "\u2028", "\x0b"),
    *(".", ",", "!?", "...", "'", "''", "\"", "(", ")", "/", "//", "_", "-", "$"),
    *("€", "+", "=>", "<", ">", "|", "^", "`", "…", "。", "،"),
    *("😀", "👍🏽", "👩‍👧", "\ufe0f", "\u200d", "\x01", "\x7f", "\x85"),
)  # fmt: skip

SPECIAL_LOOKING = (
    "<s>",
    "</s>",
    "<unk>",
    "[INST]",
    "<|x|>",
    "<0x0A>",
    "▁",
    "▁▁",
    "Ġ",
    "ĊĊ",
    "<|endoftext",
    "|>",
    "<mask>",
)


def lines(count: int = 3000, seed: int = 20240229) -> list[str]:
    """Return the hand-written lines, each also in pieces, and random combinations, `count` in all."""
    choose = random.Random(seed)
    fixed = [*SENTENCES, *(" " + line for line in SENTENCES), *SPECIAL_LOOKING]
    fixed += [line[start : start + 12] for line in SENTENCES for start in range(0, len(line), 12)]
    combined = []
    while len(fixed) + len(combined) < count:
        pool = choose.choice((PIECES, PIECES, PIECES + SPECIAL_LOOKING))
        combined.append("".join(choose.choices(pool, k=choose.randint(2, 9))))
    return fixed + combined
