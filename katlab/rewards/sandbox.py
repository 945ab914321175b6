def doctor():
    return []
