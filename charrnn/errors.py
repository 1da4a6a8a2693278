"""The one exception that stands for a mistake a user can mend."""


class UserError(ValueError):
    """What is wrong with which value, and what to do, in one line."""
