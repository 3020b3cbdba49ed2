"""What an adapter tells of its benchmark."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from regap_patch.records import Kind, Sample


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Facts of a data set.

    Attributes:
        name: as `--tasks` takes it, and the folder below `--data_root` where it is looked for.
        title: as tables name it.
        licence: of the data.
        source: where it comes from.
        how_to_obtain: what to do to have it in that folder, in a sentence.
        kind: of most items; each sample says its own.
        images: whether its items have pictures.
        scenarios: names of its subsets.
        splits: which there are; the first is the default.
        layout: of the files below the folder.
        prompt_rule: what a model is asked, in a sentence.
        judge_gets: what a judge is told was asked, in a sentence.
        known_sha256: of published files, where others have recorded it.
    """

    name: str
    title: str
    licence: str
    source: str
    how_to_obtain: str
    kind: Kind
    images: bool
    scenarios: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)
    layout: tuple[str, ...] = ()
    prompt_rule: str = ""
    judge_gets: str = "the prompt"
    known_sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found in a folder that is right.

    Attributes:
        benchmark: whose.
        root: the folder.
        counts: of items, by split or scenario.
        sha256: of the files that were read.
        notes: what a user ought to know.
    """

    benchmark: str
    root: Path
    counts: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Adapter(Protocol):
    """A module of this package. Pictures are named relative to `root`.

    Two entries of a sample's `meta` mean something to every image mode: `text_prompt`, what is asked instead
    of `prompt` where the item's own picture is not shown (all modes but real), and `words`, the text that
    stands in the picture's place in mode words.
    """

    BENCHMARK: Benchmark

    @staticmethod
    def check(root: Path) -> Report:
        """Look at all files, and compare the counts with those of the published data.

        Adapters of published data take other counts as `expected`, for a part of the data that is known to be
        one.

        Raises:
            BenchmarkError: the data is not there or not what it should be.
        """

    @staticmethod
    def samples(
        root: Path, *, split: str | None = None, limit: int | None = None, ids: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """Items sorted by uid, in image mode real, or none if an item has no picture.

        Args:
            root: the folder.
            split: None for the default.
            limit: the first so many, spread over the scenarios.
            ids: uids to which to keep.

        Raises:
            BenchmarkError: the data is not there or not what it should be.
        """
