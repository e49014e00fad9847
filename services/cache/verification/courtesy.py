"""What people put around a question out of courtesy, which changes nothing about its answer."""

from __future__ import annotations

import re

ENGLISH_ASKS = r"(?:what|how|why|where|when|who|which|whose)(?:['’]s)?\b"
RUSSIAN_ASKS = (
    r"(?:(?:в|во|на|за|до|с|со|из|от|по|для|о|об|к|у|через) )?(?:что|чем|чего|чему|ч[её]м|как|каков[аоы]?"
    r"|как(?:ой|ая|ое|ие|ого|ому|им|ую|их|ом|ими)|где|куда|откуда|когда|почему|зачем|отчего|сколько|скольки"
    r"|кто|кого|кому|кем|ком|чей|чья|чьё|чьи)\b"
)
ENGLISH_REQUEST = (
    r"(?:(?:please|kindly)[\s,]+|(?:could|can|would|will) you (?:please |kindly |possibly )*"
    r"|(?:i would|i['’]d) (?:like|love) (?:you )?to |i (?:want|need|wish)(?: you)? to "
    r"|i(?: was|['’]m| am) (?=wondering|curious))?"
    r"(?:(?:please |kindly )?(?:tell|explain|remind|advise)(?: to)?(?: me| us)?|know|find out|learn|help me understand"
    r"|do you (?:happen to )?know|any idea|wondering|curious|(?:a )?(?:quick|small|simple) question)"
    r"[\s,:-]+(?:please[\s,]+)?"
    rf"(?={ENGLISH_ASKS})"
)
RUSSIAN_REQUEST = (
    r"(?:пожалуйста[\s,]+|будьте (?:добры|любезны)[\s,]+|будь добр[а]?[\s,]+)?"
    r"(?:(?:не )?(?:могли бы|можете|можешь|мог бы|могла бы)(?: ли)?(?: вы| ты)?(?: мне| нам)? (?:пожалуйста )?"
    r"(?:подсказать|сказать|рассказать|объяснить|напомнить)"
    r"|(?:подскажи|скажи|расскажи|объясни|напомни)(?:те)?(?: мне| нам)?"
    r"|(?:я )?(?:хочу|хотел[аи]? бы|хотелось бы)(?: у вас)? (?:узнать|спросить|понять|уточнить)"
    r"|(?:мне )?(?:нужно|надо) (?:узнать|понять)"
    r"|(?:мне )?интересно|(?:вы |ты )?не (?:знаете|знаешь)(?: ли)?(?: вы| ты)?|(?:есть )?(?:вопрос|такой вопрос))"
    r"[\s,:-]+(?:пожалуйста[\s,]+)?"
    rf"(?={RUSSIAN_ASKS})"
)
GREETING = (
    r"(?:(?:hi|hello|hey|good (?:morning|afternoon|evening))(?: (?:there|all|everyone|team))?"
    r"|здравствуй(?:те)?|привет(?:ствую)?|добрый (?:день|вечер)|доброе утро)"
    # A sentence of its own, or before what asks: "Hello Kitty" greets nobody.
    rf"(?:[!.]+\s*|[\s,:-]+(?={ENGLISH_REQUEST}|{RUSSIAN_REQUEST}|{ENGLISH_ASKS}|{RUSSIAN_ASKS}))"
)
# After a comma or a sentence: in "How do you say thanks?" they are what is asked about.
THANKS = (
    r"(?:,\s*|(?<=[.!?])\s+)(?:please|thanks(?: in advance| a lot)?|thank you(?: in advance| very much| so much)?"
    r"|пожалуйста|спасибо(?: заранее| большое)?|заранее (?:спасибо|благодар(?:ю|ен|на)))[\s.!?)]*$"
)

# A task on words: what stands around them is part of them.
ON_WORDS = (
    r"\b(?:(?:translate|rewrite|rephrase|paraphrase|proofread|spell|pronounce)\b|how (?:do|would) (?:you|i) say\b"
    r"|(?:переведи|перепиши|перефразируй)(?:те)?\b|перев(?:ести|од)\b[^.?!]{0,40}(?:ский|ского|язык)"
    r"|как (?:будет|сказать|пишется|произносится)\b)"
)

_ON_WORDS = re.compile(ON_WORDS, re.IGNORECASE)
_BEFORE = re.compile(rf"^\s*(?:{GREETING})?(?:{ENGLISH_REQUEST}|{RUSSIAN_REQUEST})?", re.IGNORECASE)
_AFTER = re.compile(THANKS, re.IGNORECASE)


def without_courtesy(text: str) -> str:
    """The question alone: no greeting, no "could you please tell me", no thanks; all of it if nothing else is left.

    A request to tell is cut off only before a question word: "Tell me about Paris" stays as it is. So does every word
    of a task on words, such as to translate some.
    """
    if _ON_WORDS.search(text):
        return text
    bare = _AFTER.sub("", _BEFORE.sub("", text, count=1))
    if not any(map(str.isalnum, bare)):
        return text
    return bare + "?" if text.rstrip().endswith("?") and not bare.endswith("?") else bare
