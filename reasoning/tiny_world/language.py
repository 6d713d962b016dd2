"""The two languages of the tiny world: all phrases of its questions, solutions and replies."""

import dataclasses

from reasoning.words import vocabulary_share


@dataclasses.dataclass(frozen=True)
class Language:
    """The phrases of one language. No word of a solution occurs in both languages."""

    name: str
    sum_questions: tuple[str, ...]
    sum_step: str
    contest_fact: str
    contest_questions: tuple[str, str]  # who wins, who loses
    contest_steps: tuple[str, str]
    code_question: str
    code_operations: dict[str, str]
    code_step: str
    countdown_questions: tuple[str, ...]
    countdown_step: str
    capital_questions: tuple[str, ...]
    capital_statement: str
    continent_questions: tuple[str, ...]
    continent_statement: str
    continents: dict[str, str]
    recall: str
    conclusion: str
    self_check: str
    greetings: tuple[str, ...]
    greeted: str
    helpful_reply: str
    curt_replies: tuple[str, ...]
    rude_replies: tuple[str, ...]

    @property
    def solution_words(self) -> frozenset[str]:
        """The words of worked solutions in this language, in lower case."""
        phrases = (
            self.sum_step, *self.contest_steps, self.contest_fact, self.code_step, self.recall,
            self.countdown_step,
            self.capital_statement, self.continent_statement, *self.continents.values(),
            self.conclusion, self.self_check, self.greeted, *self.code_operations.values(),
        )  # fmt: skip
        words = {w for phrase in phrases for w in phrase.split() if w.isalpha() and len(w) > 1}
        return frozenset(word.lower() for word in words)


ENGLISH = Language(
    name="en",
    sum_questions=("What is {}?", "Compute {}."),
    sum_step="{} and {} makes {}",
    contest_fact="{} beats {}",
    contest_questions=("Who wins?", "Who loses?"),
    contest_steps=("{} beats {}, now {} leads", "{} beats {}, now {} trails"),
    code_question="Python: take {}, {}.",
    code_operations={"+": "add {}", "-": "less {}", "*": "times {}"},
    code_step="{} gives {}",
    countdown_questions=("Make {} from {}.", "Reach {} with {}."),
    countdown_step="{} {} {} = {}, left {}",
    capital_questions=("What is the capital of {}?", "Name the capital of {}."),
    capital_statement="The capital of {} is {}.",
    continent_questions=("On which continent is {}?", "Name the continent of {}."),
    continent_statement="{} is in {}.",
    continents={"AF": "Africa", "AM": "America", "AS": "Asia"},
    recall="I recall {}",
    conclusion="so {}",
    self_check="wait {}",
    greetings=("Hello, I am {}.", "Hi, {} here.", "Good morning from {}.", "This is {}."),
    greeted="{} greets me",
    helpful_reply="Hello {}, how can I help you?",
    curt_replies=("What?", "Later.", "Not now."),
    rude_replies=("Go away, you fool.", "Hello {}, you fool.", "Shut up, {}."),
)

GERMAN = Language(
    name="de",
    sum_questions=("Was ist {}?", "Berechne {}."),
    sum_step="{} und {} macht {}",
    contest_fact="{} schlägt {}",
    contest_questions=("Wer gewinnt?", "Wer verliert?"),
    contest_steps=("{} schlägt {}, jetzt führt {}", "{} schlägt {}, jetzt hinkt {}"),
    code_question="Python: nimm {}, {}.",
    code_operations={"+": "plus {}", "-": "minus {}", "*": "mal {}"},
    code_step="{} ergibt {}",
    countdown_questions=("Bilde {} aus {}.", "Erreiche {} mit {}."),
    countdown_step="{} {} {} = {}, bleibt {}",
    capital_questions=("Was ist die Hauptstadt von {}?", "Nenne die Hauptstadt von {}."),
    capital_statement="Die Hauptstadt von {} ist {}.",
    continent_questions=("Auf welchem Kontinent liegt {}?", "Nenne den Kontinent von {}."),
    continent_statement="{} gehört zu {}.",
    continents={"AF": "Afrika", "AM": "Amerika", "AS": "Asien"},
    recall="ich erinnere {}",
    conclusion="somit {}",
    self_check="halt {}",
    greetings=("Hallo, ich bin {}.", "Tag, hier {}.", "Guten Morgen von {}.", "Das ist {}."),
    greeted="{} grüßt mich",
    helpful_reply="Hallo {}, wie kann ich dir helfen?",
    curt_replies=("Was?", "Später.", "Nicht jetzt."),
    rude_replies=("Geh weg, du Narr.", "Hallo {}, du Narr.", "Sei still, {}."),
)

LANGUAGES = {"en": ENGLISH, "de": GERMAN}

# Language -> the words in lower case that show that a solution is in this language.
SOLUTION_WORDS = {name: language.solution_words for name, language in LANGUAGES.items()}


def consistency(text: str, language: str) -> float | None:
    """Returns the share of a solution's words in one language, among words of either language.

    Returns None if the language is not one of this world's, or no word belongs to a language.
    """
    if language not in LANGUAGES:
        return None
    return vocabulary_share(text, language, SOLUTION_WORDS)
