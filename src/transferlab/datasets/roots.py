"""Files and folders that the user names: found, or missing with what lies nearby."""

from pathlib import Path

from transferlab.errors import UserError, nearest


def existing(path: Path, option: str) -> Path:
    """Return ``path`` if there is such a folder.

    Args:
        path: a folder.
        option: the option that names it, for the message.

    Raises:
        UserError: it's missing, a file, or unreadable; the message names the nearest there is.
    """
    _check_there(path, option)
    if not path.is_dir():
        raise UserError(f"`{option}={path}` is a file, where a folder is needed.")
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise UserError(f"`{option}={path}` can't be read ({error.strerror}).") from error
    return path


def existing_file(path: Path, option: str) -> Path:
    """Return ``path`` if there is such a file; raise as :func:`existing` does."""
    _check_there(path, option)
    if not path.is_file():
        raise UserError(f"`{option}={path}` is a folder, where a file is needed.")
    return path


def _check_there(path: Path, option: str) -> None:
    if path.exists():
        return
    here = path.absolute()
    parent = next((up for up in here.parents if up.is_dir()), Path("/"))
    missing = here.relative_to(parent).parts[0]
    names = [item.name for item in parent.iterdir() if not item.name.startswith(".")]
    near = f"; {nearest(missing, names)}" if names else ""
    raise UserError(f"`{option}={path}`: there is no {missing} in {parent}{near}.")
