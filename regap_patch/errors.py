"""Everything that the patch layer refuses, as one tree.

```
ReGapError
├── ConfigError (ValueError)         a setting that means nothing, or two that contradict each other
├── UnknownHostError (TypeError)     no row of the table of hosts fits this model
├── UnsupportedModelError (TypeError)  the model is known, but ReGap has no meaning on it or comes too late
├── AlreadyPatchedError              the model carries a patch with another config
├── PatchStateError (RuntimeError)   a forward pass that the patch cannot add a loss to
├── CalibrationError (RuntimeError)  alpha cannot be measured, or does not belong to this run
├── FinetuneError (RuntimeError)     the regulariser would train the language model
├── LaunchError (RuntimeError)       `python -m regap_patch.run` got nothing that it can patch
├── RowsError (ValueError)            rows that no distance can be taken of
├── MeasureError (RuntimeError)      pairs, states or files from which no gap can be measured
├── RecordsError (ValueError)        a file of samples, answers or verdicts that is torn or another run's
├── BenchmarkError (RuntimeError)    a data set that is not there, or not what its adapter knows
├── EvaluationError (RuntimeError)   an evaluation that cannot start or go on
├── DefenseError (RuntimeError)      a defence that does not suit this model, or was made for another
├── JudgeError (RuntimeError)        a judge that is not there, or that these answers do not suit
├── ReportError (RuntimeError)       files that no table or figure can be made from
├── StudyError (RuntimeError)        a step of the miniature cannot run, or failed
└── DemoError (RuntimeError)         a picture, a setting or a client that the demo does not take
```
Each message is one sentence: what was asked, what was found, what to do.
"""

from __future__ import annotations


class ReGapError(Exception):
    """The root of the tree: `except ReGapError` catches what this package refuses and nothing else."""


class ConfigError(ReGapError, ValueError):
    """A setting that means nothing, or two settings that contradict each other."""


class UnknownHostError(ReGapError, TypeError):
    """No row of the table of hosts fits this model."""


class UnsupportedModelError(ReGapError, TypeError):
    """The model is of a kind, or in a state, on which the patch has no meaning."""


class AlreadyPatchedError(ReGapError):
    """The model carries a patch with another config."""


class PatchStateError(ReGapError, RuntimeError):
    """A forward pass that the patch cannot add its loss to."""


class CalibrationError(ReGapError, RuntimeError):
    """The coefficient alpha cannot be measured, or does not belong to this run."""


class FinetuneError(ReGapError, RuntimeError):
    """The regulariser was about to act while the language model trains."""


class LaunchError(ReGapError, RuntimeError):
    """The launcher got nothing that it can run, or the script built nothing that it can patch."""


class RowsError(ReGapError, ValueError):
    """Rows that no distance can be taken of: too few, not finite, of another width, or all the same.

    Attributes:
        sample: index of the sample at fault, where there is one.
    """

    def __init__(self, message: str, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample


class MeasureError(ReGapError, RuntimeError):
    """Pairs, hidden states or files from which no gap can be measured, or two that cannot be compared."""


class RecordsError(ReGapError, ValueError):
    """A file of samples, answers or verdicts that cannot be read, or that another run wrote."""


class BenchmarkError(ReGapError, RuntimeError):
    """A data set that is not there, or not what its adapter knows: other counts, columns or files."""


class EvaluationError(ReGapError, RuntimeError):
    """An evaluation that cannot start or go on: no such target, another run's folder, other weights."""


class DefenseError(ReGapError, RuntimeError):
    """A defence that does not suit this model, or vectors, words or anchors that are not what it needs."""


class JudgeError(ReGapError, RuntimeError):
    """A judge that is not there, or settings that it does not take."""


class ReportError(ReGapError, RuntimeError):
    """Files that no table or figure can be made from, or a figure that cannot be written."""


class StudyError(ReGapError, RuntimeError):
    """A step of the miniature cannot run, or failed."""


class DemoError(ReGapError, RuntimeError):
    """A picture, a setting or a client that the demo does not take."""
