"""Names the corpora that a base model of the tiny world can be trained on."""

from reasoning.tiny_world import corpus, countdown_corpus

WEB, COUNTDOWN = "web", "countdown"
CORPORA = (WEB, COUNTDOWN)


def documents(name: str, count: int, seed: int, varied: float = 0.0) -> list[str]:
    """Returns `count` documents of a corpus; none contains a question of the test split.

    Args:
      name: "web" (every domain but countdown) or "countdown".
      count: how many documents.
      seed: decides every draw.
      varied: see `corpus.document`; "countdown" has no such documents.

    Raises:
      ValueError: there is no such corpus, or it has no varied documents.
    """
    if name == WEB:
        return corpus.documents(count, seed, varied)
    if name != COUNTDOWN:
        raise ValueError(f"corpus {name!r} is unknown; choose from {', '.join(CORPORA)}")
    if varied:
        raise ValueError(f"varied={varied}: the corpus {name!r} has no such documents; set it to 0")
    return countdown_corpus.documents(count, seed)
