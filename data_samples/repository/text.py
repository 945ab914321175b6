"""Words and letters."""


def initials(name):
    """The first letter of every word, in capitals."""
    return "".join(word[0].upper() for word in name.split())


def count_words(text):
    """How many words a text has."""
    return len(text.split())


def is_palindrome(word):
    """Whether a word reads the same from its end, in capitals or not."""
    letters = word.lower()
    return letters == letters[::-1]
