"""Errors as one line."""


class UsageError(Exception):
    """Wrong arguments, files or configuration: the user can tell from the message what to do."""


# Their messages are written for people to read; of others the name says more than the message.
_WITH_OWN_WORDS = (UsageError, ValueError, RuntimeError, OSError, KeyError, ImportError)


def one_line(error: BaseException) -> str:
    """What went wrong, without a line break.

    Args:
        error: of a process that was started from here, it tells that process's error.
    """
    lines = [line.strip() for line in _message(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if type(error).__name__ == "ProcessRaisedException":
        # The traceback of the process: the error stands at its end.
        return lines[-1]
    text = " ".join(lines)
    return text if isinstance(error, _WITH_OWN_WORDS) else f"{type(error).__name__}: {text}"


def _message(error: BaseException) -> str:
    # str() of a KeyError has quotes around the message.
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    return str(error)
