"""Texts in many scripts, and a WordPiece vocabulary and a byte-level BPE that cut all of them into many pieces."""

import json
import unicodedata

TEXTS = (
    "What colour is the car, and who's driving it?", "UPPER lower MiXeD iPhone", "naïve café — déjà vu, Ångström",
    "Łódź, Øresund, þorn, ðeir, Ĳsselmeer", "Straße GROẞ Maße ß", "İstanbul'da ılık IŞIK ığdır",
    "Tiếng Việt có dấu: Nguyễn Đặng", "Tiếng Việt decomposed".replace("ế", "e\u0302\u0301"),
    "Ελληνικά ΟΔΥΣΣΕΥΣ ά έ ή ί", "ὀξεῖα καὶ περισπωμένη", "Съешь ещё этих мягких Йогурт Ё", "Українська їжа Ґ",
    "שלום עולם", "שָׁלוֹם עִם נִקּוּד", "مرحبا بالعالم", "مَرْحَبًا ٱلْعَالَم ـــ", "हिन्दी में क्या है?", "क़ ख़ ग़ ज़",
    "বাংলা ভাষা", "தமிழ் மொழி", "ภาษาไทยไม่มีช่องว่าง", "ພາສາລາວ", "日本語のテキスト", "カタカナ ｶﾀｶﾅ ひらがな ガ カ\u3099",
    "中文分词，没有空格。", "漢字 mixed 汉字 text", "한국어 텍스트 가각", "ქართული ენა ᲥᲐᲠᲗᲣᲚᲘ",
    "հայերեն Լեզու", "አማርኛ ቋንቋ", "emoji 🙂 👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️", "a\u200bb zero\u200cwidth\u200djoin\ufeffbom",
    "no\u00a0break\u202fspace\u3000wide", "line\u2028and\u2029paragraph", "tab\tnew\nline\r\nend\x0bvertical\x0cform",
    "control\x00\x01\x07\x1b[31mred\x7f\x85\x9f", "e\u0301 a\u030a o\u0308\u0304 Z\u0351\u036b\u0343algo",
    "x" * 120 + " " + "y" * 99 + " " + "z" * 101, "1234567890" * 5, "it's 4:21 and $1,000.50 — ½ ² Ⅷ ①",
    "C1=CC=CC=C1 under_score-hyphen/slash\\back", "", " ", "  two  spaces ", "a", "ﬁne ﬂow ﬀ ŉ ǆ ǅ", "ﷺ ﬃ Å K",
    "🏳️‍🌈\U000e0067\ue000\uffff", "[MASK] is not [UNK] nor [cls]", "don't [SEP]stop[SEP]", "<mask> a <mask>",
)  # fmt: skip


def write_wordpiece(folder):
    """`vocab.txt` of every character of `TEXTS` in all its forms, at a word's beginning and inside it."""
    characters = set()
    for text in TEXTS:
        forms = (text, text.lower(), text.upper(), "".join(c.lower() for c in text))
        for form in (*forms, *(unicodedata.normalize("NFD", form) for form in forms)):
            characters |= {c for c in form if not c.isspace() and unicodedata.category(c)[0] != "C"}
    ordered = sorted(characters)
    words = ["naive", "naïve", "the", "日本", "##本語", "car", "##ed", "istanbul", "i̇"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = list(dict.fromkeys([*special, *ordered, *(f"##{c}" for c in ordered), *words]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes("".join(f"{token}\n" for token in tokens).encode())
    return folder


def write_byte_level(folder):
    """`vocab.json` and `merges.txt`, learned from `TEXTS`."""
    from tokenizers import ByteLevelBPETokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        [text for text in TEXTS if text] * 3, vocab_size=900, special_tokens=special, show_progress=False
    )
    tokenizer.save_model(str(folder))
    return folder


def settings(folder, name="tokenizer_config.json", **values):
    """Write a file of settings beside a tokenizer."""
    (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder
