#!/usr/bin/env python3
"""Reads a trace as docs/trace-format.md describes it, and prints its series, one JSON object per line.

Usage: read_trace.py TRACE     Needs the zstd command. What is not sound is passed over.
"""
import json
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from io import BytesIO
from types import SimpleNamespace

MASK = (1 << 64) - 1
CATALOG, SLICES, JOURNAL = 2, 3, 4
FIELDS = ("sequence kind level catalog_blocks slices payload_bytes raw_bytes payload_sum from_tick "
          "first_tick last_tick salt payload").split()


def varint(stream):
    value = shift = 0
    while True:
        byte = stream.read(1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


def signed(value):
    """Undoes zig-zag; differences wrap at 2^64."""
    return ((value >> 1) ^ -(value & 1)) & MASK


def record_number(stream):
    """An integer in a record: one byte below 251, else a marker and 2, 4 or 8 bytes."""
    byte = stream.read(1)[0]
    return byte if byte < 251 else int.from_bytes(stream.read({251: 2, 252: 4, 253: 8}[byte]), "little")


def inflate(payload):
    return subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE, check=True).stdout


def sound_blocks(data):
    salt = None
    for copy in range(0, 4096, 1024):
        magic, version, check, _, found = struct.unpack_from("<8sIIQQ", data, copy)
        if magic == b"edleak\x1a\n" and zlib.crc32(data[copy:copy + 12] + data[copy + 16:copy + 32]) == check:
            assert version <= 5, f"format {version} is newer than this reader"
            salt = struct.pack("<Q", found)
            break
    assert salt is not None, "not a trace"
    at = 4096
    while at + 64 <= len(data):
        head = data[at:at + 64]
        if head[:4] != b"EDLB" or zlib.crc32(salt + head[8:]) != struct.unpack_from("<I", head, 4)[0]:
            at += 64
            continue
        header = struct.unpack_from("<QBBHIQIIQQQ", head, 8)
        block = SimpleNamespace(**dict(zip(FIELDS, (*header, salt, data[at + 64:at + 64 + header[5]]))))
        at += 64 + (block.payload_bytes + 63) // 64 * 64
        check = zlib.crc32(salt + struct.pack("<Q", block.sequence) + block.payload)
        if block.kind == JOURNAL or (block.kind in (CATALOG, SLICES) and check == block.payload_sum):
            yield block


def chunks(journal, wanted):
    """The contents of the valid chunks of one kind."""
    at, index, data = 0, 0, journal.payload
    while at + 16 <= len(data):
        check, size, kind, number = struct.unpack_from("<IIII", data, at)
        covered = data[at + 4:at + 16 + size]
        prefix = journal.salt + struct.pack("<Q", journal.sequence)
        if len(covered) < 12 + size or number != index or zlib.crc32(prefix + covered) != check:
            return
        if kind == wanted:
            yield covered[12:]
        at, index = at + 16 + size, index + 1


def areas(stream):
    """Skips the changed memory areas of a slice (no series needs them): an id gap and four differences
    each."""
    for _ in range(varint(stream)):
        for _ in range(5):
            varint(stream)


def journal_slices(block):
    """Slices of a journal: tick, and the counters of the sites that changed."""
    sites = {}
    for content in chunks(block, 1):
        stream = BytesIO(content)
        tick, _, _, _, count = (varint(stream) for _ in range(5))
        changed, site = {}, -1
        for _ in range(count):
            site += varint(stream) + 1
            was = sites.get(site, (0, 0, 0, 0))
            sites[site] = changed[site] = [(field + signed(varint(stream))) & MASK for field in was]
        yield tick, changed


def sealed_slices(block):
    """The slices of a sealed block, in the same form."""
    stream, tick, plans = BytesIO(inflate(block.payload)), block.from_tick, []
    end = varint(stream)
    end += stream.tell()
    while stream.tell() < end:
        gap, _, _, _, count = (varint(stream) for _ in range(5))
        tick += gap
        a, b, c = stream.read(3)
        if c >> 4:
            areas(stream)
            c &= 15
        plans.append((tick, count, (a & 15, a >> 4, b & 15, b >> 4, c)))
    planes = {}
    for column in range(5):
        for plane in range(8):
            size = sum(count for _, count, widths in plans if widths[column] > plane)
            planes[column, plane] = BytesIO(stream.read(size))
    states = {}
    for tick, count, widths in plans:
        columns = [[0] * count for _ in range(5)]
        for column, numbers in enumerate(columns):
            for plane in range(widths[column]):
                for i, byte in enumerate(planes[column, plane].read(count)):
                    numbers[i] |= byte << 8 * plane
        changed, site = {}, -1
        for gap, *unforeseen in zip(*columns):
            site += gap + 1
            allocs, frees, size, freed, step, mean = states.get(site, (0, 0, 0, 0, 0, 0))
            d_allocs, d_frees, d_size, d_freed = map(signed, unforeseen)
            d_allocs = (d_allocs + step) & MASK
            d_size = (d_size + d_allocs * mean) & MASK
            d_frees = (d_frees + (d_allocs if frees else 0)) & MASK
            before, allocs, size = allocs, (allocs + d_allocs) & MASK, (size + d_size) & MASK
            if before.bit_length() != allocs.bit_length():
                mean = size // allocs if allocs else 0
            d_freed = (d_freed + (d_size if d_frees == d_allocs else d_frees * mean)) & MASK
            frees, freed = (frees + d_frees) & MASK, (freed + d_freed) & MASK
            states[site] = allocs, frees, size, freed, d_allocs, mean
            changed[site] = [allocs, frees, size, freed]
        yield tick, changed


def tick_ns(found):
    """The tick length in the newest Start record; such a record is always the first of its block or chunk."""
    result = 10**9
    for block in sorted((b for b in found if b.kind in (CATALOG, JOURNAL)), key=lambda b: b.sequence):
        for records in [inflate(block.payload)] if block.kind == CATALOG else chunks(block, 2):
            stream = BytesIO(records)
            if stream.read(1) == b"\0":
                for _ in range(record_number(stream)):
                    stream.read(record_number(stream))
                _, _, result = (record_number(stream) for _ in range(3))
    return result


def main(path):
    with open(path, "rb") as file:
        found = list(sound_blocks(file.read()))
    replays = []
    for block in sorted((b for b in found if b.kind in (SLICES, JOURNAL)), key=lambda b: -b.sequence):
        slices = list(sealed_slices(block) if block.kind == SLICES else journal_slices(block))
        if block.kind == JOURNAL:
            if not slices:
                continue
            ticks = [tick for tick, _ in slices]
            block.last_tick, block.slices = ticks[-1], len(ticks)
            gaps = [b - a for a, b in zip(ticks, ticks[1:])]
            for four in zip(gaps, gaps[1:], gaps[2:], gaps[3:]):
                block.level = max(block.level, min(four).bit_length() - 1)
        if all(block.last_tick < other.from_tick or other.last_tick < block.from_tick
               for other, _ in replays):
            replays.append((block, slices))
    replays = sorted((pair for pair in replays if pair[1]), key=lambda pair: pair[0].from_tick)
    if not replays:
        return
    stride = 1 << max(block.level for block, _ in replays)
    first, last = replays[0][1][0][0], replays[-1][0].last_tick
    most = min(16384, 4 * sum(block.slices for block, _ in replays))
    while last // stride + 1 - -(-first // stride) > most:
        stride *= 2
    grid = range(-(-first // stride) * stride, last + 1, stride)
    series, skipped, values, point = {}, {}, {}, 0
    replay = [(tick, changed, i == 0) for _, slices in replays for i, (tick, changed) in enumerate(slices)]
    for k, (tick, changed, is_whole) in enumerate(replay):
        values = dict(changed) if is_whole else {**values, **changed}
        following = replay[k + 1][0] if k + 1 < len(replay) else MASK + 1
        for site in changed:
            series.setdefault(site, [])
        while point < len(grid) and grid[point] < following:
            for site, points in series.items():
                skipped.setdefault(site, point)
                points.append(values.get(site, (0, 0, 0, 0)))
            point += 1
    period_s = float(Fraction(stride * tick_ns(found), 10**9))
    for site, points in sorted(series.items()):
        print(json.dumps({
            "id": site, "period_s": period_s, "first_slice": skipped.get(site, 0),
            "live_bytes": [max(0, size - freed) for _, _, size, freed in points],
            "live_count": [max(0, allocs - frees) for allocs, frees, _, _ in points],
            "allocs": [allocs for allocs, _, _, _ in points], "frees": [frees for _, frees, _, _ in points]}))


if __name__ == "__main__":
    main(sys.argv[1])
