"""The files of a benchmark's folder: read, counted, and one sentence on what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from regap_patch.errors import BenchmarkError
from regap_patch.records import Sample
from regap_patch.safety.benchmarks.benchmark import Benchmark

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where the data of a benchmark lies. Names of files are relative to it, with `/` between.

    Attributes:
        of: whose data.
        root: the folder.
    """

    of: Benchmark
    root: Path

    def wrong(self, what: str, remedy: str = "") -> BenchmarkError:
        """The error of this folder: what was found, and what to do (get the data, unless told otherwise)."""
        return BenchmarkError(
            f"The benchmark {self.of.name} was to be read from {self.root}, but {what}: "
            f"{remedy or self.of.how_to_obtain}."
        )

    def split(self, name: str | None) -> str:
        """The split of a name, the first for None.

        Raises:
            BenchmarkError: there is none of that name.
        """
        if name is None:
            return self.of.splits[0]
        if name not in self.of.splits:
            raise self.wrong(
                f"the split {name!r} was asked for", f"it has {', '.join(self.of.splits)}; name one of them"
            )
        return name

    def text(self, name: str) -> str:
        """What a text file holds; a byte order mark is no part of it.

        Raises:
            BenchmarkError: the folder or the file is missing or cannot be read.
        """
        if not self.root.is_dir():
            raise self.wrong("there is no such folder")
        try:
            return (self.root / name).read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise self.wrong(f"it has no {name}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise self.wrong(f"{name} cannot be read ({error})", "fetch that file again") from error

    def table(self, name: str, columns: Sequence[str], filled: Sequence[str] = ()) -> list[Row]:
        """The rows of a file of comma-separated values with a header.

        Args:
            name: of the file.
            columns: that it has to have; others do no harm.
            filled: columns that have to hold something in every row.

        Raises:
            BenchmarkError: no such file, a column that is missing or renamed, a row that ends early.
        """
        reader = csv.DictReader(StringIO(self.text(name), newline=""))
        found = list(reader.fieldnames or ())
        missing = [column for column in columns if column not in found]
        if missing:
            raise self.wrong(
                f"{name} has no column {', '.join(missing)} among its columns {', '.join(found) or '(none)'}",
                f"it needs {', '.join(columns)}; take the published file, or rename the column back",
            )
        try:
            rows: list[Row] = list(reader)
        except csv.Error as error:
            raise self.wrong(f"{name} is no table ({error})", "fetch that file again") from error
        return self.with_fields(name, rows, columns, filled or columns)

    def json(self, name: str) -> Any:
        """What a JSON file holds.

        Raises:
            BenchmarkError: no such file, or it is no JSON.
        """
        try:
            return json.loads(self.text(name))
        except ValueError as error:
            raise self.wrong(f"{name} is no JSON ({error})", "fetch that file again") from error

    def json_rows(self, name: str, fields: Sequence[str], filled: Sequence[str] | None = None) -> list[Row]:
        """The objects of a JSON list.

        Raises:
            BenchmarkError: no such file, another content, or a row without one of the fields.
        """
        rows = self.json(name)
        if not isinstance(rows, list):
            raise self.wrong(f"{name} holds {type(rows).__name__} instead of a list of rows")
        return self.with_fields(name, rows, fields, filled)

    def json_lines(self, name: str, fields: Sequence[str], filled: Sequence[str] | None = None) -> list[Row]:
        """The objects of a file of JSON lines; empty lines count for nothing.

        Raises:
            BenchmarkError: no such file, a line that is no JSON, or one without one of the fields.
        """
        rows = []
        for number, line in enumerate(self.text(name).split("\n"), 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise self.wrong(
                    f"line {number} of {name} is no JSON ({error})", "fetch that file again"
                ) from error
        return self.with_fields(name, rows, fields, filled)

    def with_fields(
        self, name: str, rows: Sequence[Any], fields: Sequence[str], filled: Sequence[str] | None = None
    ) -> list[Row]:
        """The rows, each with all fields, and with something in those of `filled` (all of them by default).

        Raises:
            BenchmarkError: the first row that is not so.
        """
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise self.wrong(f"row {number} of {name} is {type(row).__name__} instead of an object")
            missing = [field for field in fields if field not in row]
            if missing:
                found = ", ".join(map(str, row))
                raise self.wrong(
                    f"row {number} of {name} has no field {', '.join(missing)}, but {found}",
                    f"every row needs {', '.join(fields)}; take the published file, or rename the field back",
                )
            empty = [field for field in (fields if filled is None else filled) if row[field] in (None, "")]
            if empty:
                raise self.wrong(
                    f"row {number} of {name} has nothing in {', '.join(empty)}", "fetch that file again"
                )
        return list(rows)

    def counted(self, found: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, int]:
        """The counts, if they are the expected ones.

        Raises:
            BenchmarkError: the first that is not.
        """
        for part, count in expected.items():
            if found.get(part, 0) != count:
                raise self.wrong(
                    f"{part} has {found.get(part, 0)} items where the published data has {count}",
                    f"numbers over other items do not compare; {self.of.how_to_obtain}",
                )
        unknown = sorted(found.keys() - expected.keys())
        if unknown:
            raise self.wrong(f"it has {unknown[0]!r}, which the published data has not")
        return dict(found)

    def with_pictures(self, names: Iterable[str | None], remedy: str = "") -> int:
        """How many different pictures are named; all of them are there.

        Raises:
            BenchmarkError: some are not; the first is named.
        """
        wanted = sorted({name for name in names if name})
        missing = [name for name in wanted if not (self.root / name).is_file()]
        if missing:
            raise self.wrong(
                f"{len(missing)} of its {len(wanted)} pictures are missing, the first being {missing[0]}",
                remedy,
            )
        return len(wanted)

    def sha256(self, *names: str) -> dict[str, str]:
        """Of files that are there."""
        return {name: hashlib.sha256((self.root / name).read_bytes()).hexdigest() for name in names}

    def compared(self, found: Mapping[str, str]) -> tuple[str, ...]:
        """A note on how hashes of files compare with those that others have recorded; none without such.

        Another hash is no error: a file may have been fetched with other ends of lines.
        """
        known = {name: value for name, value in self.of.known_sha256.items() if name in found}
        other = [name for name, value in known.items() if found[name] != value]
        if not known:
            return ()
        if not other:
            return (f"{len(known)} of {len(found)} files have the hash that is on record for them",)
        return (f"{other[0]} has not the hash that is on record for it ({len(other)} such files)",)

    def chosen(
        self, items: Iterable[Sample], limit: int | None = None, ids: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """Items sorted by uid; a limit takes from every scenario in turn.

        Raises:
            BenchmarkError: two items with one uid, or none at all.
        """
        made = sorted(items, key=lambda item: item.uid)
        if not made:
            raise self.wrong("it holds no item of that split")
        twice = [uid for uid, count in Counter(item.uid for item in made).items() if count > 1]
        if twice:
            raise self.wrong(f"the item {twice[0]} is there more than once", "fetch that file again")
        kept = [item for item in made if ids is None or item.uid in ids]
        yield from kept if limit is None else spread(kept, limit)


def spread(items: Sequence[Sample], limit: int) -> list[Sample]:
    """The first so many, the first of every scenario before the second of any; in the order of `items`."""
    turns: Counter[str] = Counter()
    ranked = []
    for index, item in enumerate(items):
        ranked.append((turns[item.scenario], index))
        turns[item.scenario] += 1
    return [items[index] for index in sorted(index for _, index in sorted(ranked)[: max(limit, 0)])]
