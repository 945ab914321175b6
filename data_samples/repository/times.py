"""Times of the day and years."""


def minutes(clock):
    """The minutes since midnight at a time such as "08:30"."""
    hours, rest = clock.split(":")
    return 60 * int(hours) + int(rest)


def clock(minutes):
    """The time, such as "08:30", that many minutes after midnight."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def is_leap(year):
    """Whether a year has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
