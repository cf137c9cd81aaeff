"""Every sentence of the command line has a translation that holds the same placeholders, in the right script."""

from __future__ import annotations

import ast
import string
from collections import Counter
from pathlib import Path

import pytest

from interlock.interfaces import messages
from interlock.interfaces.messages import CATALOGS, LANGUAGES, read_catalog, say, set_language
from interlock.interfaces.release_words import FRAMES, LABELS, plan_in_words, release_in_words
from interlock.interfaces.resident_words import CODES, TEXTS

INTERFACES = CATALOGS.parent
TRANSLATED = [language for language in LANGUAGES if language != "en"]
# Frequent characters that belong to one script only.
ONLY_HANS = set("这们来时个为说对会没让给问题录运证据审删实过还进种见写语签认开关门产时")
ONLY_HANT = set("這們來時個為說對會沒讓給問題錄運證據審刪實過還進種見寫語簽認開關門產")


def _sentences() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in INTERFACES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                text = node.args[0]
                where = f"{path}:{node.lineno}"
                assert isinstance(text, ast.Constant), f"{where}: a sentence is written out, so that it is translated"
                assert isinstance(text.value, str)
                found[text.value] += 1
    found.update([*CODES.values(), *TEXTS, *FRAMES, *LABELS])
    return found


def _placeholders(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_catalogue_has_every_sentence_and_no_other(language: str) -> None:
    sentences, catalog = set(_sentences()), set(read_catalog(language))
    assert not sentences - catalog, "not translated"
    assert not catalog - sentences, "said nowhere any more"


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_the_placeholders_of_its_sentence(language: str) -> None:
    for text, translation in read_catalog(language).items():
        assert _placeholders(text) == _placeholders(translation), text


def test_each_catalogue_is_written_in_its_own_script() -> None:
    hans = "".join(read_catalog("zh_Hans").values())
    hant = "".join(read_catalog("zh_Hant").values())
    assert not (ONLY_HANT - ONLY_HANS) & set(hans)
    assert not (ONLY_HANS - ONLY_HANT) & set(hant)


def test_no_sentence_stands_twice_in_a_catalogue() -> None:
    for language in TRANSLATED:
        lines = (CATALOGS / f"{language}.po").read_text(encoding="utf-8").splitlines()
        assert max(Counter(line for line in lines if line.startswith("msgid")).values()) == 1


@pytest.fixture
def _english_afterwards() -> object:
    yield
    set_language("en")


@pytest.mark.usefixtures("_english_afterwards")
def test_a_sentence_is_said_in_the_chosen_language() -> None:
    assert say("Run {number} waits: {wanted}", number=7, wanted="x") == "Run 7 waits: x"
    set_language("zh_Hans")
    assert say("Do it?") == "要执行吗\uff1f"
    set_language("zh_Hant")
    assert say("Do it?") == "要執行嗎\uff1f"
    assert say("nobody translated this {x}", x=1) == "nobody translated this 1"


@pytest.mark.parametrize(
    "text",
    ['msgid "a"\nmsgstr b\n', 'nonsense "a"\n', 'msgid "a"\nmsgid "b"\n', 'msgid "a\nmsgstr "b"\n', '"floating"\n'],
)
def test_a_broken_catalogue_is_refused_with_its_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xx.po").write_text(text)
    monkeypatch.setattr(messages, "CATALOGS", tmp_path)
    with pytest.raises((ValueError, SyntaxError)):
        read_catalog.__wrapped__("xx")


def test_what_gettext_tools_write_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xx.po").write_text(
        '# note\nmsgid ""\nmsgstr "Language: xx\\n"\n\n#: a.py\nmsgid ""\n"one "\n"two\\n"\nmsgstr ""\n"eins "\n'
        '"zwei\\n"\n\nmsgid "untranslated"\nmsgstr ""\n'
    )
    monkeypatch.setattr(messages, "CATALOGS", tmp_path)
    assert read_catalog.__wrapped__("xx") == {"one two\n": "eins zwei\n"}


@pytest.mark.usefixtures("_english_afterwards")
def test_what_a_release_says_of_itself_is_said_in_the_chosen_language() -> None:
    line = "step 1 of 3, 5 % of users are to get it: the candidate is healthy"
    assert release_in_words(line) == line
    set_language("zh_Hans")
    assert release_in_words(line) == "第 1/3 步\uff0c将让 5 % 的用户使用\uff1a候选版本健康"
    assert release_in_words("goes back: rolled back by hand (person:bob)") == "退回\uff1a手动回滚 (person:bob)"
    assert release_in_words("goes back: v2 failed 3 of 9") == "退回\uff1av2 failed 3 of 9", "what is not known stays"
    plan = "from          v1  sha256:3f9a\n1     5 % of users  the judge certifies it"
    assert plan_in_words(plan).splitlines()[1].split() == ["1", "5", "%", "的用户", "判定器认证"]
