"""Tests language consistency: which strings count as words, and of which language."""

import time

import pytest

from reasoning.problem import Problem
from reasoning.text_measures.languages import consistency

QUESTIONS = {
    "english": "How many apples are left in the basket?",
    "chinese": "篮子里还剩几个苹果？请计算。",
    "traditional": "籃子裡還剩幾個蘋果？",
    "japanese": "かごにりんごは何個残っていますか。",
    "kanji": "三角形面積計算",  # Japanese or Chinese
    "kanji of japan": "円周率図形問題",  # Japanese by its characters
    "hanzi": "计算三角形面积",  # Chinese by its characters
    "korean": "바구니에 사과가 몇 개 남아 있습니까?",
    "russian": "Сколько яблок осталось в корзине?",
    "ukrainian": "Скільки яблук залишилося в кошику?",
    "greek": "Πόσα μήλα έμειναν στο καλάθι;",
    "bengali": "ঝুড়িতে কয়টি আপেল বাকি আছে?",
    "tamil": "கூடையில் எத்தனை ஆப்பிள்கள் மீதமுள்ளன?",
    "telugu": "బుట్టలో ఎన్ని ఆపిల్స్ మిగిలి ఉన్నాయి?",
    "hindi": "टोकरी में कितने सेब बचे हैं?",
    "arabic": "كم تفاحة بقيت في السلة؟",
    "persian": "چند سیب در سبد مانده است؟",
    "hebrew": "כמה תפוחים נשארו בסל?",
    "thai": "มีแอปเปิ้ลเหลืออยู่ในตะกร้ากี่ผล",
    "georgian": "რამდენი ვაშლი დარჩა კალათაში?",
    "amharic": "በቅርጫቱ ውስጥ ስንት ፖም ቀርቷል?",
    "khmer": "តើមានផ្លែប៉ោមប៉ុន្មាននៅសល់ក្នុងកន្ត្រក?",
    "vietnamese": "Còn lại bao nhiêu quả táo trong giỏ?",
}
CHAINS = {
    "english": "First we add three and four. Then the basket holds seven apples.",
    "chinese": "我们先把三个和四个加起来。篮子里一共有七个苹果，所以答案是七。",
    "traditional": "我們先把三個和四個加起來。籃子裡一共有七個蘋果。",
    "japanese": "まず三個と四個を足します。かごの中にはりんごが七個あるので、答えは七です。",
    "korean": "먼저 세 개와 네 개를 더합니다. 바구니에는 사과가 일곱 개 있습니다.",
    "russian": "Сначала сложим три и четыре. В корзине теперь семь яблок.",
    "ukrainian": "Спочатку додамо три і чотири. У кошику тепер сім яблук.",
    "greek": "Πρώτα προσθέτουμε τρία και τέσσερα. Το καλάθι έχει επτά μήλα.",
    "bengali": "প্রথমে তিনটি ও চারটি যোগ করি। ঝুড়িতে এখন সাতটি আপেল আছে।",
    "tamil": "முதலில் மூன்றையும் நான்கையும் கூட்டுவோம். கூடையில் ஏழு ஆப்பிள்கள் உள்ளன.",
    "telugu": "మొదట మూడు మరియు నాలుగు కలుపుదాం. బుట్టలో ఏడు ఆపిల్స్ ఉన్నాయి.",
    "hindi": "पहले तीन और चार जोड़ते हैं। टोकरी में अब सात सेब हैं।",
    "arabic": "نجمع أولا ثلاثة وأربعة. في السلة الآن سبع تفاحات.",
    "persian": "ابتدا سه و چهار را جمع می‌کنیم. اکنون هفت سیب در سبد است.",
    "hebrew": "קודם נחבר שלושה וארבעה. בסל יש עכשיו שבעה תפוחים.",
    "thai": "ก่อนอื่นเราบวกสามกับสี่ ตอนนี้ในตะกร้ามีแอปเปิ้ลเจ็ดผล",
    "georgian": "ჯერ სამი და ოთხი შევკრიბოთ. კალათაში ახლა შვიდი ვაშლია.",
    "amharic": "መጀመሪያ ሦስት እና አራት እንደምራለን። ቅርጫቱ አሁን ሰባት ፖም አለው።",
    "khmer": "ដំបូងយើងបូកបីនិងបួន។ ឥឡូវកន្ត្រកមានផ្លែប៉ោមប្រាំពីរ។",
    "vietnamese": "Trước hết ta cộng ba và bốn. Giỏ có bảy quả táo.",
}
SAME = {
    "english": {"english", "vietnamese"},
    "chinese": {"chinese", "traditional", "hanzi", "kanji"},
    "russian": {"russian", "ukrainian"},
    "arabic": {"arabic", "persian"},
    "japanese": {"japanese", "kanji", "kanji of japan"},
}
# What no chain of any language loses anything by.
NOT_WORDS = [
    "x", "x + y = 5", "$\\frac{\\text{sum}}{2}$",
    "\\(a \\cdot b\\)", "$$\\sum_{i=1}^n i$$", "π", "θ = 30°",
    "\\begin{align} total &= price \\times count \\end{align}", "αβγ", "ABC", "sin(x) + log(y)",
    "3 cm", "5 km", "12kg", "f(x)", "x_max", "`total = sum(values)`", "Alice", "Python", "New York",
    "```python\nfor item in items:\n    total += item.price\nprint(total)\n```", "https://example.org/some/page",
    "“hello”", '"seven"', "「sieben」", "«восемь»", "(‘nine’)", "gcd(12, 8)", "𝐱 + 𝑦", "x²", "½",
]  # fmt: skip


def share(question, chain, **metadata):
    return consistency(chain, Problem("jsonl:x", question, "7", metadata))


def group(name):
    return next((key for key, names in SAME.items() if name in names), name)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_in_the_language_of_the_question_earns_all(name):
    assert share(QUESTIONS[name], CHAINS[name]) == 1


@pytest.mark.parametrize("asked", QUESTIONS)
def test_a_chain_in_another_language_earns_nothing(asked):
    for name, chain in CHAINS.items():
        same = group(asked) == group(name) or (asked == "kanji" and name in SAME["japanese"])
        if not same and not (asked == "kanji" and group(name) == "chinese"):
            assert share(QUESTIONS[asked], chain) <= 0.1, name


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_no_word_makes_no_difference(name):
    for each in NOT_WORDS:
        if name == "greek" and each in ("αβγ",):
            continue
        chain = f"{CHAINS[name]}\n{each}\n{CHAINS[name]} {each} ."
        assert share(QUESTIONS[name], chain) == 1, each


@pytest.mark.parametrize("name", CHAINS)
def test_a_sentence_in_another_language_costs_its_share(name):
    other = "russian" if group(name) != "russian" else "hindi"
    mixed = share(QUESTIONS[name], f"{CHAINS[name]}\n{CHAINS[other]}")
    assert 0.3 < mixed < 0.9


def test_words_without_a_language_tell_nothing():
    for chain in ("", "7", "x = 5", "$x^2$", "AB = CD, \\sin x", "```\nx = 1\n```", "π r²"):
        assert share(QUESTIONS["english"], chain) is None
        assert share(QUESTIONS["chinese"], chain) is None
    assert share("3 + 4 = ?", CHAINS["english"]) is None


def test_chinese_and_japanese():
    chinese, traditional = CHAINS["chinese"], CHAINS["traditional"]
    japanese = CHAINS["japanese"]
    for question in (QUESTIONS["japanese"], QUESTIONS["kanji of japan"]):
        assert share(question, japanese) == 1
        for chain in (
            chinese,
            traditional,
            "三加四等于七",
            "七個蘋果",
            chinese.replace("，", "\n"),
        ):
            assert share(question, chain) < 0.5, chain
        # A kana here and there makes no Japanese of it.
        assert share(question, chinese + "の") < 0.3
    for question in (QUESTIONS["chinese"], QUESTIONS["hanzi"]):
        assert share(question, chinese) == share(question, traditional) == 1
        assert share(question, japanese) < 0.1
        assert share(question, "优の良品" + chinese) > 0.9
    # Characters alone do not tell which.
    for chain in (chinese, traditional, japanese):
        assert share(QUESTIONS["kanji"], chain) == 1
    assert share(QUESTIONS["kanji"], CHAINS["korean"]) == 0
    # Half a chain in Chinese.
    assert 0.3 < share(QUESTIONS["japanese"], japanese + chinese) < 0.8
    # Headings and terms of characters alone are Japanese within Japanese.
    assert share(QUESTIONS["japanese"], f"計算過程\n{japanese}\n最終解答：七個") == 1


def test_the_language_of_the_problem_decides_where_it_is_given():
    assert share("3 + 4 = ?", CHAINS["russian"], language="ru") == 1
    assert share("三角形面積計算", CHAINS["chinese"], language="ja") < 0.5
    assert share("三角形面積計算", CHAINS["japanese"], language="zh-TW") < 0.1
    assert share(QUESTIONS["chinese"], CHAINS["chinese"], language="python") == 1


def test_the_question_may_quote_another_language():
    assert share("What does “你好，世界” mean?", CHAINS["english"]) == 1
    assert share("What does 你好世界和平 mean in plain English words?", CHAINS["english"]) == 1
    # Its own words may be repeated.
    assert share("How old is 小明 now?", "The age of 小明 is the sum of both, so seven.") == 1
    assert share("Wie alt ist Иван Петров?", "Иван Петров ist sieben Jahre alt, also sieben.") == 1


@pytest.mark.parametrize(
    "hidden",
    [
        "We Add Three. And Four. To Get Seven. Then We Stop. And Say So.",
        "WE ADD THREE AND FOUR TO GET SEVEN APPLES WITHOUT FURTHER THOUGHT",
        "“We add three and four to get seven apples, and we are done.”",
        "“We add” “three and” “four to” “get seven” “apples and” “we are done”",
        "`We add three and four to get seven apples and then we are done`",
        "```\nWe add three and four to get seven\nand so we are quite done here\n```",
        "$\\text{We add three and four to get seven apples}$",
        "$\\text{We add three}$ and $\\text{four apples}$"
        " $\\text{to get seven}$ $\\text{quite easily}$",
        "```\n# We add three and four to get seven = x\n```",
    ],
)
def test_prose_does_not_hide(hidden):
    assert share(QUESTIONS["chinese"], f"好的。{hidden}") < 0.5
    assert share(QUESTIONS["russian"], f"Хорошо. {hidden}") < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "$" * 100_000, "`" * 100_001, "$ " * 50_000, "\\(" * 50_000, "\\[" * 50_000, "“" * 100_000,
        "\\begin{a}" * 20_000, "a\u0301\u0327" * 30_000, "a" + "\u0301\u0327" * 50_000,
        "「" * 100_000,
        "word " * 40_000, "слово " * 30_000, "三角形" * 30_000, "a b " * 40_000, "http://" * 20_000,
        "\\text{" * 30_000, "$\\text{" * 20_000 + "$", "\n" * 100_000, "`a b c d" * 20_000,
        "\\" * 100_000,
    ],
    ids=range(20),
)  # fmt: skip
def test_time_is_linear(text):
    for question in (QUESTIONS["english"], QUESTIONS["japanese"]):
        start = time.process_time()
        share(question, text)
        assert time.process_time() - start < 3
