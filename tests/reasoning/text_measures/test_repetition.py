"""Tests words and repetition, in scripts with and without spaces."""

import pytest

from reasoning.text_measures.repetition import repeated_share
from reasoning.words import count_words, words_of


@pytest.mark.parametrize(
    "text, words",
    [
        ("Wait, 3+4!", ["wait", ",", "3", "+", "4", "!"]),
        ("three hundred", ["three", "hundred"]),
        ("a" * 40, ["a" * 16, "a" * 16, "a" * 8]),
        ("你好世界", ["你", "好", "世", "界"]),
        ("りんご三個", ["り", "ん", "ご", "三", "個"]),
        ("Python代码", ["python", "代", "码"]),
        ("사과가 일곱 개", ["사과가", "일곱", "개"]),
        ("আমি বাংলায় গান গাই", ["আমি", "বাংলায়", "গান", "গাই"]),
        ("கூடையில் ஏழு", ["கூடையில்", "ஏழு"]),
        ("می‌کنیم سیب", ["می‌کنیم", "سیب"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("สวัสดีครับ", ["สวัสดี", "ครับ"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    "phrase",
    [
        "你好",
        "请再想一想",
        "りんご",
        "もう一度",
        "สวัสดี",
        "wait ",
        "ещё раз ",
        "আবার ",
        "다시 ",
        "សួស្តី",
    ],
)
def test_what_is_said_again_and_again_is_repetition(phrase):
    assert repeated_share(phrase * 40, 4) > 0.5
    assert repeated_share("你好" * 5, 4) > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "我们先把三个苹果和四个梨放进篮子里，然后数一数一共有多少个水果，最后再检查这个结果对不对。",
        "まず三個のりんごと四個の梨をかごに入れ、それから全部でいくつあるかを数えて確かめます。",
        "First we put three apples and four pears into the basket, then count all of them again.",
        "ก่อนอื่นเราใส่แอปเปิ้ลสามผลและลูกแพร์สี่ผลลงในตะกร้า จากนั้นนับจำนวนทั้งหมด",
        "প্রথমে আমরা তিনটি আপেল ও চারটি নাশপাতি ঝুড়িতে রাখি, তারপর সবগুলো গুনে দেখি।",
    ],
)
def test_ordinary_prose_repeats_little(text):
    assert repeated_share(text, 4) < 0.05


def test_characters_are_not_taken_for_words_where_lines_are_measured():
    assert count_words("三角形的面积" * 10) == 30
    assert count_words("one two three, 4") == 5
    assert count_words("りんごは七個。") == 4
