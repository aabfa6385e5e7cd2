"""Reading a bag of chunks, MCAP or ROS 1: which to open, and where their messages lie.

A chunk's index makes reading fast, but nothing protects it. So it is proved: each message that
it names must end where the next one, or a record of another kind, begins. Otherwise, or without
an index, the chunk is walked record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.logs.buffers import MAX_CHUNK, Damaged, Scratch, Source, crc32, inflate
from training.logs.contents import Contents
from training.logs.gather import Gather
from training.logs.log import Block, note
from training.logs.records import Chunk, Ints, Messages, Run, Walk, is_among

# From so many messages on, proving the index is faster than walking the chunk.
WORTH_PROVING = 48


@dataclass(frozen=True)
class Format:
    """What differs between the two kinds of bag.

    Attributes:
        pieces: walks along the file, past damage, telling the contents about it.
        walk: reads the records between two positions of a chunk, up to the first damaged one.
        parse: reads the messages at sorted offsets, None if one of them is no message.
        learn: tells the contents of a definition record that begins at a position.
        entry: one entry of an index, with a field `offset`.
        least_message: the bytes of a message record without payload.
    """

    pieces: Callable[[Source, Contents, Scratch], Iterator[Chunk | Run]]
    walk: Callable[[NDArray[np.uint8], int, int], Walk]
    parse: Callable[[NDArray[np.uint8], Ints], Messages | None]
    learn: Callable[[Contents, NDArray[np.uint8], int], None]
    entry: np.dtype
    least_message: int


def read_blocks(
    path: Path, contents: Contents, form: Format, topics: Collection[str]
) -> Iterator[Block]:
    """Blocks of the topics, in one walk along the file."""
    scratch = Scratch()
    names = {number: name for number, name in contents.names.items() if name in topics}
    unwanted = contents.kinds.keys() - names.keys()
    gather = Gather(names, scratch)
    with Source(path) as source:
        for piece in form.pieces(source, contents, scratch):
            if not _names_only(piece, unwanted):
                found = opened(source, piece, contents, form, scratch)
                if found is not None:
                    yield from gather.add(*found)
                found = None  # its buffer may now be used again
    yield from gather.flush()


def survey(source: Source, contents: Contents, form: Format) -> None:
    """Fills the contents from the file's pieces, for want of a summary.

    Chunks whose index names no new channel stay compressed; their index gives the counts.
    """
    scratch = Scratch()
    for piece in form.pieces(source, contents, scratch):
        if isinstance(piece, Chunk) and piece.start_ns and piece.end_ns:
            contents.widen(piece.start_ns, piece.end_ns)
        if isinstance(piece, Chunk) and _names_only(piece, contents.kinds.keys()):
            for entry in piece.index or ():
                contents.counts[entry.channel] += entry.count
            continue
        found = opened(source, piece, contents, form, scratch)
        if found is not None and len(found[1].t_ns):
            messages = found[1]
            channels, counts = np.unique(messages.channels, return_counts=True)
            contents.counts.update(dict(zip(channels.tolist(), counts.tolist(), strict=True)))
            if isinstance(piece, Run):
                contents.widen(int(messages.t_ns.min()), int(messages.t_ns.max()))


def _names_only(piece: Chunk | Run, channels: Collection[int]) -> bool:
    """Whether a chunk's index says that it holds messages of these channels alone."""
    return (
        isinstance(piece, Chunk)
        and piece.index is not None
        and all(entry.channel in channels for entry in piece.index)
    )


def opened(
    source: Source, piece: Chunk | Run, contents: Contents, form: Format, scratch: Scratch
) -> tuple[NDArray[np.uint8], Messages] | None:
    """The bytes (B,) and messages of a piece; None, and a finding, if it is damaged."""
    try:
        if isinstance(piece, Chunk):
            data = _data(source, piece, scratch)
            records = _records(piece, data, form, contents.findings)
        else:
            data, records = piece.data, piece.records
        for position in records.definitions:
            form.learn(contents, data, position)
    except Damaged as error:
        note(contents.findings, f"{_described(piece, contents)} was skipped: {error}")
        return None
    messages = records.messages
    good = is_among(messages.channels, sorted(contents.kinds)) & (messages.t_ns >= 0)
    if good.all():
        return data, messages
    note(
        contents.findings,
        f"{_described(piece, contents)}: {int((~good).sum())} messages were skipped, of a "
        "publisher that is not listed or with a time beyond the year 2262",
    )
    return data, messages.only(good)


def _data(source: Source, chunk: Chunk, scratch: Scratch) -> NDArray[np.uint8]:
    if chunk.data_size > MAX_CHUNK:
        raise Damaged(f"its {chunk.data_size} bytes are more than {MAX_CHUNK}")
    packed = source.read(chunk.data_position, chunk.data_size, scratch)
    if chunk.is_cut and chunk.compression in ("", "none"):
        return packed
    if packed.size < chunk.data_size:
        raise Damaged(f"only {packed.size} of its {chunk.data_size} bytes are there")
    data = inflate(chunk.compression, packed, chunk.size, scratch)
    if chunk.crc is not None and crc32(data) != chunk.crc:
        raise Damaged("its CRC does not match")
    return data


def _records(chunk: Chunk, data: NDArray[np.uint8], form: Format, findings: list[str]) -> Walk:
    entries = chunk.index or ()
    count = sum(entry.count for entry in entries)
    if WORTH_PROVING <= count <= len(data) // form.least_message:
        index = np.frombuffer(b"".join(entry.content for entry in entries), form.entry)
        proved = _proved(data, index["offset"].astype(np.int64), form)
        if proved is not None:
            return proved
        note(findings, f"the index of the chunk at byte {chunk.position} is wrong: not used")
    records = form.walk(data, 0, len(data))
    if records.end != len(data) and not chunk.is_cut:
        note(
            findings,
            f"the chunk at byte {chunk.position} is damaged at its byte {records.end}: "
            "what follows there was skipped",
        )
    return records


def _proved(data: NDArray[np.uint8], offsets: Ints, form: Format) -> Walk | None:
    """The chunk as its index describes it, or None if that is not the whole truth."""
    offsets = np.sort(offsets, kind="stable")  # a few sorted runs: merged, not sorted anew
    messages = form.parse(data, offsets) if offsets[0] >= 0 else None
    if messages is None:
        return None
    edges = np.concatenate([[0], messages.ends])
    nexts = np.concatenate([offsets, [len(data)]])
    definitions: list[int] = []
    for gap in np.flatnonzero(edges != nexts).tolist():
        between = form.walk(data, int(edges[gap]), int(nexts[gap]))
        if between.end != nexts[gap] or len(between.messages.t_ns):
            return None
        definitions += between.definitions
    return Walk(messages, definitions, len(data))


def _described(piece: Chunk | Run, contents: Contents) -> str:
    if isinstance(piece, Run):
        return f"the run of records at byte {piece.position}"
    text = f"the chunk at byte {piece.position}"
    if piece.start_ns is None or piece.end_ns is None:
        return text
    first, last = ((t - (contents.start_ns or 0)) / 1e9 for t in (piece.start_ns, piece.end_ns))
    return f"{text} ({first:.3f} s to {last:.3f} s)"
