"""The exception for mistakes that a user can correct."""


class UserError(ValueError):
    """What is wrong with which value, and what to do, in one line."""
