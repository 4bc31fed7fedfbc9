"""Texts that tokenisers disagree about: emoji, other scripts, accents, white space, very long ones."""

from __future__ import annotations

import random

SEEDS = (
    "a red boat on the sea", "Un bateau rouge sur la mer", "Ein rotes Boot auf dem Meer",
    "Un barco rojo en el mar", "THE RED BOAT", "", "   ", "\t\n", "!", "🚤", "🚤🌊 boat",
    "👨\u200d👩\u200d👧 family", "☀️ sunny ☀", "e\u20e3 keycap 1️⃣",
    "¡Niño! ¿Dónde está?", "Größe, Füße, ÄÖÜ", "œuvre cœur ÆØÅ",
    "Cafe\u0301 cre\u0300me", "İstanbul ıspanak", "ΟΔΥΣΣΕΥΣ Ὀδυσσεύς", "קאט אדום על הים",
    "قارب أحمر في البحر", "\u200fقارب\u200e boat", "红色的船在海上", "赤い船", "빨간 배 한 척",
    "красная лодка", "लाल नाव", "เรือสีแดง", "no\u00a0break\u202fspace\u2007here", "zero\u200bwidth\ufeffmark",
    "soft\u00adhyphen", "tab\tand\nline\r\nend", "[CLS] [SEP] [MASK] [PAD] [UNK]", "##boat ##s",
    "\x00\x01\x7f control", "bad \ufffd character", "ﬁne ﬂoat", "don't stop—now… “quoted” «guillemets»",
    "a-b_c/d\\e|f", "3.14 1,000 50% $5 €7 ½ ² №", "x" * 99, "x" * 100, "x" * 101, "y" * 700,
    "boat " * 400, "🚤" * 300, "é" * 300, "word\u0301" * 60, "a" + "\u0301" * 40,
    "https://example.org/a?b=c#d", "name@example.org", "(((((",
)  # fmt: skip


def hard_texts(count: int) -> list[str]:
    """Return `count` different texts, the same in every run: the seeds, and mixtures of them."""
    chance, texts = random.Random(11), dict.fromkeys(SEEDS)
    while len(texts) < count:
        texts[chance.choice(" ,;-\u00a0").join(chance.sample(SEEDS, chance.randint(2, 4)))[:600]] = None
    return list(texts)[:count]
