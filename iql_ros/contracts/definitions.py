"""Message definitions from folders of .msg files, for types that no log embeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from iql_ros.errors import ContractError


def read_definitions(folders: Sequence[Path], msgtypes: Iterable[str]) -> dict[str, str]:
    """Texts of the definitions that `msgtypes` need and the folders hold.

    Args:
        folders: searched recursively; `turtlesim/msg/Pose.msg` and `turtlesim/Pose.msg`
            both define `turtlesim/msg/Pose`.
        msgtypes: the types to start from; what they contain is followed.

    Returns:
        Message type to definition text; types found in no folder are left out.

    Raises:
        ContractError: a folder is missing, holds no .msg file, or one cannot be parsed.
    """
    texts: dict[str, str] = {}
    for folder in folders:
        files = sorted(folder.rglob("*.msg"))
        if not files:
            raise ContractError(
                f"message_folders: {folder} "
                f"{'holds no .msg file' if folder.is_dir() else 'is not a folder'}"
            )
        texts |= {_msgtype(file): file.read_text() for file in files}
    found: dict[str, str] = {}
    pending = list(msgtypes)
    while pending:
        msgtype = pending.pop()
        if msgtype in texts and msgtype not in found:
            found[msgtype] = texts[msgtype]
            pending += _contained(msgtype, texts[msgtype])
    return dict(sorted(found.items()))


def _msgtype(file: Path) -> str:
    folder = file.parent
    package = folder.parent.name if folder.name == "msg" else folder.name
    return f"{package}/msg/{file.stem}"


def _contained(msgtype: str, text: str) -> list[str]:
    """Message types that a definition names as the types of its fields."""
    try:
        parsed = get_types_from_msg(text, msgtype)
    except Exception as error:  # the parser raises several kinds, each on malformed text
        raise ContractError(f"the definition of {msgtype} cannot be parsed: {error}") from None
    names: list[str] = []
    for _, fields in parsed.values():
        for _, description in fields:
            if description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE):
                description = description[1][0]
            if description[0] == Nodetype.NAME:
                names.append(str(description[1]))
    return names
