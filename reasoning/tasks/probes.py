"""Probes of what training may destroy: a fixed list of facts, and small talk.

    facts           short questions with one answer each
    small_talk      greetings and the like

The test problems are the same for every model, so figures before and after a training compare. The
training problems are others of the same kind. Rules judge the answers: a fact is right if a word of
the reference is in the first sentence, and a reply to small talk is sensible if it is a sentence
with one of the words that such a reply has, and neither a calculation nor a repetition.
"""

import re
from collections.abc import Sequence

from reasoning.problem import Problem, Verdict
from reasoning.response import after_chain, parse_response
from reasoning.tasks import Task, draw
from reasoning.words import ngrams, words_of

# Of the test problems, `TESTED` come first; the others are for training.
TESTED = 50
TESTED_TALK = 24
# A reply of more words is no small talk.
MOST_WORDS = 120

# Question -> words that answer it, joined by |.
FACTS = {
    "What is the capital of France?": "paris",
    "What is the capital of Italy?": "rome",
    "What is the capital of Japan?": "tokyo",
    "What is the capital of Germany?": "berlin",
    "What is the capital of Spain?": "madrid",
    "What is the capital of China?": "beijing",
    "What is the capital of Russia?": "moscow",
    "What is the capital of England?": "london",
    "What is the capital of Canada?": "ottawa",
    "What is the capital of Egypt?": "cairo",
    "What is the capital of India?": "delhi",
    "What is the capital of Greece?": "athens",
    "What is the capital of Portugal?": "lisbon",
    "What is the capital of Australia?": "canberra",
    "What is the capital of Austria?": "vienna",
    "What is the capital of Ireland?": "dublin",
    "What is the capital of Norway?": "oslo",
    "What is the capital of Sweden?": "stockholm",
    "What is the capital of the United States?": "washington",
    "What is the capital of Mexico?": "mexico city",
    "What is the largest planet in our solar system?": "jupiter",
    "Which planet is known as the Red Planet?": "mars",
    "Which planet is closest to the Sun?": "mercury",
    "What star does the Earth orbit?": "sun",
    "What is the largest ocean on Earth?": "pacific",
    "What is the longest river in Africa?": "nile",
    "What is the highest mountain in the world?": "everest",
    "On which continent is Brazil?": "south america",
    "On which continent is Egypt?": "africa",
    "What is the chemical symbol for water?": "h2o|h₂o",
    "What is the chemical symbol for gold?": "au",
    "What is the chemical symbol for oxygen?": "o|o2|o₂",
    "What gas do plants absorb from the air?": "carbon dioxide|co2|co₂",
    "What gas do humans need to breathe?": "oxygen",
    "What is frozen water called?": "ice",
    "What is the hardest natural substance?": "diamond|diamonds",
    "What force pulls objects towards the Earth?": "gravity|gravitational",
    "Which organ pumps blood through the body?": "heart",
    "Which organ do humans use to think?": "brain",
    "Which organ do humans use to breathe?": "lungs|lung",
    "What do bees make?": "honey",
    "What is the largest mammal in the world?": "blue whale",
    "What is the fastest land animal?": "cheetah",
    "What is a baby dog called?": "puppy|pup",
    "What is a baby cat called?": "kitten",
    "How many legs does a spider have?": "8|eight",
    "How many days are there in a week?": "7|seven",
    "How many months are there in a year?": "12|twelve",
    "How many hours are there in a day?": "24|twenty-four",
    "How many minutes are there in an hour?": "60|sixty",
    "How many sides does a triangle have?": "3|three",
    "How many sides does a square have?": "4|four",
    "What color is the sky on a clear day?": "blue",
    "What color is grass?": "green",
    "What color do you get when you mix blue and yellow?": "green",
    "What is the first letter of the English alphabet?": "a",
    "What is the opposite of hot?": "cold",
    "What is the opposite of up?": "down",
    "What is the opposite of big?": "small|little",
    "What language is spoken in France?": "french",
    "What language is spoken in Spain?": "spanish",
    "What language is spoken in Germany?": "german",
    "What language is spoken in Brazil?": "portuguese",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "Who wrote Hamlet?": "shakespeare",
    "Who painted the Mona Lisa?": "vinci|leonardo",
    "Who developed the theory of relativity?": "einstein",
    "Who discovered gravity when an apple fell?": "newton",
    "Who was the first president of the United States?": "washington",
    "Who was the first person to walk on the Moon?": "armstrong",
    "Who invented the telephone?": "bell",
    "Who invented the light bulb?": "edison",
    "In which country is the Eiffel Tower?": "france",
    "In which city is the Eiffel Tower?": "paris",
    "In which country is the Great Wall?": "china",
    "In which country are the pyramids of Giza?": "egypt",
    "In which city is the Statue of Liberty?": "new york",
    "In which country is the Taj Mahal?": "india",
    "In which city is Big Ben?": "london",
    "In which city is the Colosseum?": "rome",
    "What is the currency of Japan?": "yen",
    "What is the currency of the United States?": "dollar|dollars",
    "What is the currency of Germany?": "euro|euros",
    "Which season comes after winter?": "spring",
    "Which season is the coldest?": "winter",
    "Which day comes after Monday?": "tuesday",
    "Which month comes after January?": "february",
    "Which metal is liquid at room temperature?": "mercury",
    "What do cows produce that people drink?": "milk",
    "What is the main ingredient of bread?": "flour|wheat",
    "What fruit is used to make wine?": "grapes|grape",
    "What is the natural satellite of the Earth?": "moon",
    "In which year did World War II end?": "1945",
    "In which year did World War I begin?": "1914",
    "What is the smallest prime number?": "2|two",
    "At what temperature does water boil in Celsius?": "100",
    "At what temperature does water freeze in Celsius?": "0|zero",
    "What instrument measures temperature?": "thermometer",
    "What is the study of living things called?": "biology",
    "What is the study of stars and planets called?": "astronomy",
}
# What is said -> words of which a sensible reply has one, joined by |.
SMALL_TALK = {
    "Hello!": "hello|hi|hey|help|assist|welcome",
    "Hi there.": "hello|hi|hey|help|assist|welcome",
    "Good morning!": "morning|hello|hi|help|assist|day",
    "Good evening.": "evening|hello|hi|help|assist",
    "Good night!": "night|sleep|rest|dreams|tomorrow|hello|hi",
    "How are you?": "i'm|i|fine|good|well|great|thank|thanks",
    "How are you today?": "i'm|i|fine|good|well|great|thank|thanks",
    "How is it going?": "i'm|i|fine|good|well|great|going|thank|thanks",
    "Nice to meet you.": "meet|nice|pleasure|too|help|hello|hi",
    "What is your name?": "name|i'm|i|call|smollm",
    "Who are you?": "i'm|i|assistant|ai|smollm",
    "Thank you!": "welcome|glad|happy|pleasure|help",
    "Thanks for your help.": "welcome|glad|happy|pleasure|help",
    "You are very kind.": "thank|thanks|kind|glad|happy|welcome|appreciate",
    "Goodbye!": "goodbye|bye|see|care|farewell|day|later",
    "See you tomorrow.": "see|tomorrow|bye|goodbye|forward|care|day",
    "I am tired.": "sorry|rest|sleep|tired|break|relax|help",
    "I am happy today.": "glad|great|happy|wonderful|good|hear|joy",
    "I am sad.": "sorry|sad|feel|feeling|here|help|talk",
    "Can you help me?": "help|course|sure|yes|assist|happy|need",
    "What can you do?": "i|can|help|assist",
    "I like music.": "music|song|songs|listen|great|like|love",
    "I have a dog.": "dog|dogs|pet|name|great|lovely",
    "It is raining today.": "rain|raining|weather|umbrella|day",
    "Hey!": "hello|hi|hey|help|assist|welcome",
    "Good afternoon.": "afternoon|hello|hi|help|assist|day",
    "How do you do?": "i'm|i|fine|good|well|do|thank|thanks",
    "Pleased to meet you.": "meet|nice|pleasure|too|help|hello|hi",
    "Thanks a lot!": "welcome|glad|happy|pleasure|help",
    "Bye!": "goodbye|bye|see|care|farewell|day|later",
    "I am hungry.": "food|eat|hungry|meal|snack|cook",
    "I am bored.": "bored|fun|try|activity|activities|read|play",
    "I love books.": "book|books|read|reading|love|author",
    "I have a cat.": "cat|cats|pet|name|great|lovely",
    "It is sunny today.": "sun|sunny|weather|day|outside",
    "Tell me something nice.": "you|you're|nice|love|day|smile|kind",
    "Can we talk?": "talk|course|sure|yes|chat|help|mind",
    "I need a friend.": "friend|friends|here|talk|help|listen",
    "Happy birthday!": "thank|thanks|birthday|happy|day",
    "Have a nice day!": "thank|thanks|you|too|day",
}


class Probe(Task):
    """A fixed list of questions, part of them for the evaluation."""

    figure = "accuracy"
    evaluated_whole = True
    listed: dict[str, str] = {}
    tested = 0

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """Draws questions of a split; see `Task.problems`."""
        if split not in ("train", "test"):
            raise ValueError(f"{self.name} has the splits train and test, not {split!r}")
        pairs = list(self.listed.items())
        pairs = pairs[: self.tested] if split == "test" else pairs[self.tested :]
        problems = [Problem(self.name, question, answer, {}) for question, answer in pairs]
        return draw(problems, count, seed, f"{self.name}, split {split},")

    def extract(self, response: str) -> str | None:
        """Returns the answer block, or else all that a reader sees; None if that is empty."""
        answer = parse_response(response).answer
        return (after_chain(response).strip() if answer is None else answer) or None

    def verify_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Verdict]:
        """Judges each answer by its words."""
        return [self.judge(p.answer.split("|"), a) for p, a in zip(problems, answers, strict=True)]

    def judge(self, wanted: Sequence[str], answer: str) -> Verdict:
        """Judges one answer by the words that it should have."""
        raise NotImplementedError


class Facts(Probe):
    """Short questions with one answer each."""

    listed, tested = FACTS, TESTED

    def judge(self, wanted: Sequence[str], answer: str) -> Verdict:
        """Says whether the first sentence has one of the references as whole words."""
        first = re.split(r"(?<=[.!?])\s|\n", answer.strip(), maxsplit=1)[0]
        has = _has(wanted, first)
        return Verdict(has, "named" if has else f"{first[:40]!r} has none of {', '.join(wanted)}")


class SmallTalk(Probe):
    """Greetings and the like."""

    figure = "sensible"
    listed, tested = SMALL_TALK, TESTED_TALK

    def judge(self, wanted: Sequence[str], answer: str) -> Verdict:
        """Says whether a reply is a sentence with a word that fits."""
        words = words_of(answer)
        if not 2 <= len(words) <= MOST_WORDS:
            return Verdict(False, f"{len(words)} words")
        if re.search(r"\d\s*[-+*/=×]", answer):
            return Verdict(False, "a calculation")
        runs = ngrams(words, 4)
        if len(runs) - len(set(runs)) > 0.3 * len(runs):
            return Verdict(False, "repetitive")
        fits = _has(wanted, answer)
        return Verdict(fits, "fits" if fits else f"has none of {', '.join(wanted)}")


def _has(wanted: Sequence[str], text: str) -> bool:
    """Tells whether a text has one of several words or groups of words, in any case."""
    return any(
        re.search(rf"(?<!\w){re.escape(each)}(?!\w)", text, re.IGNORECASE) for each in wanted
    )
