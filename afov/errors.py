"""The one error that a user's data can cause."""


class InputError(ValueError):
    """Data or settings from outside are wrong.

    The message is one line that names the file, topic or field, what was expected and what to do;
    command lines print it without a traceback.
    """
