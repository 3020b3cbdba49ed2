"""The check of a whole data file before training."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from llava.train.data import LazySupervisedDataset
from llava.train.preprocess import SampleError

logger = logging.getLogger(__name__)
_MOST_LISTED = 20


def validate(dataset: LazySupervisedDataset, num_workers: int = 0) -> None:
    """Reads every sample before training, so that all problems come at once and early.

    Args:
        dataset: The samples; with `on_bad_sample="skip"` those that cannot be used are skipped from now on.
        num_workers: Processes that read, beside this one.

    Raises:
        SampleError: Some samples cannot be used, and `on_bad_sample` is "error".
    """
    problems = find_problems(dataset, num_workers)
    if not problems:
        return
    listed = "\n".join(islice(problems.values(), _MOST_LISTED))
    if len(problems) > _MOST_LISTED:
        listed += f"\n... and {len(problems) - _MOST_LISTED} more"
    summary = f"{len(problems)} of {len(dataset)} samples of {dataset.list_data_dict.path} cannot be used"
    if dataset.data_args.on_bad_sample == "error":
        raise SampleError(
            f"{summary}; repair or remove them, or pass --on_bad_sample skip to train without them:\n{listed}"
        )
    dataset.record_skipped(problems)
    logger.warning("%s and will be skipped:\n%s", summary, listed)


def find_problems(dataset: LazySupervisedDataset, num_workers: int = 0) -> dict[int, str]:
    """Reads every sample, and collects the sentence of each that cannot be used.

    In a distributed run each rank reads its share; all ranks return all problems.

    Args:
        dataset: The samples.
        num_workers: Processes that read, beside this one.

    Returns:
        Index in the file -> what is wrong, in the order of the file.
    """
    from tqdm import tqdm

    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (
        (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    )
    share = Subset(_Problems(dataset), range(rank, len(dataset), world))
    loader = DataLoader(share, batch_size=None, num_workers=num_workers)
    found: Iterable[tuple[int, str | None]] = tqdm(loader, "Checking samples", len(share), disable=rank > 0)
    problems = {index: problem for index, problem in found if problem}
    if distributed:
        shares: list[dict[int, str]] = [{} for _ in range(world)]
        torch.distributed.all_gather_object(shares, problems)
        problems = {index: problem for part in shares for index, problem in part.items()}
    return dict(sorted(problems.items()))


class _Problems(Dataset[tuple[int, str | None]]):
    def __init__(self, dataset: LazySupervisedDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, str | None]:
        try:
            self.dataset.sample(index)
        except SampleError as error:
            return index, str(error)
        return index, None
