"""The space between a text and the words that follow it, which tokenizers keep with the words."""


def spaced(prompt: str, target: str) -> tuple[str, str]:
    """Return prompt and target with the space between them moved from the end of the prompt to the target's front.

    Tokenizers keep a space with the word after it. A target that begins with a letter or digit gets a space, unless
    the prompt is empty or ends in other white space.
    """
    bare = prompt.removesuffix(" ")
    moved = bare != prompt and not target[:1].isspace()
    missing = target[:1].isalnum() and bare != "" and not bare[-1:].isspace()
    return bare, f" {target}" if moved or missing else target
