"""What the user can mend."""


class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2."""


def one_line(error: Exception, most: int | None = None) -> str:
    """An exception's text as one line, its first `most` characters."""
    return " ".join(str(error).split())[:most]
