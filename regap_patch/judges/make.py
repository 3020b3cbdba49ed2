"""From the name of a preset to a judge: the only place where one becomes the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from regap_patch.errors import JudgeError
from regap_patch.judges.catalogue import Preset, preset
from regap_patch.judges.local_model import Head, LocalModel
from regap_patch.judges.protocol import Judge
from regap_patch.judges.scorer import Score

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Resources:
    """What a preset cannot know: where things lie here, and what they run on.

    Attributes:
        models: folder or hub name of weights by preset; else the preset's own.
        keywords: files or folders with published word lists.
        prompt: file of HarmBench's published prompt.
        endpoint: address of the OpenAI-compatible server, before `/chat/completions`.
        endpoint_model: the model's name there.
        rubric: file of one's own.
        threshold: instead of the preset's.
        device: of weights; "auto" is cuda where there is one.
        dtype: of weights; "auto" is the checkpoint's own.
        offline: nothing is fetched, and no endpoint of another machine is asked.
        timeout: seconds for one reply of an endpoint.
        retries: of one request.
        score: how an answer to a utility item is scored.
    """

    models: Mapping[str, str] = field(default_factory=dict)
    keywords: tuple[Path, ...] = ()
    prompt: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    rubric: Path | None = None
    threshold: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False
    timeout: float = 60.0
    retries: int = 2
    score: Score | None = None


def make_judge(name: str, given: Resources | None = None) -> Judge:
    """The judge of a preset.

    Raises:
        JudgeError: no such preset, or what it needs is not there.
    """
    described = preset(name)
    return KINDS[described.kind](described, given or Resources())


def _keywords(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.keywords import KeywordJudge
    from regap_patch.judges.published_text import published_words

    settings = described.settings
    words = settings.get("words")
    if words is None:
        words = published_words(described.name, settings["published"], given.keywords)
    return KeywordJudge(
        described.name,
        tuple(words),
        settings["case"],
        tuple(settings.get("whole", ())),
        tuple(settings.get("required", ())),
        settings.get("opening"),
    )


def _rules(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.keywords import RuleJudge

    return RuleJudge(described.name)


def _ingredients(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.keywords import IngredientJudge

    return IngredientJudge(described.name)


def _scorer(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.scorer import ScorerJudge

    if given.score is None:
        raise JudgeError(
            f"{described.name} needs the rules of the benchmarks: run `regap eval judge`, which brings them, "
            f"or pass Resources(score=...)."
        )
    return ScorerJudge(described.name, given.score)


def _beaver_dam(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.beaver_dam import BeaverDamJudge

    local = _local(described, given, "classification")
    return BeaverDamJudge(described.name, local, described.settings, given.threshold)


def _llama_guard(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.spoken_judges import LlamaGuardJudge

    local = _local(described, given, "generation")
    return LlamaGuardJudge(described.name, local, described.settings, given.threshold)


def _harmbench(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.published_text import prompt_text
    from regap_patch.judges.spoken_judges import HarmBenchJudge

    prompt = described.settings["prompt"]
    if prompt is None:
        if given.prompt is None:
            raise JudgeError(
                f"{described.name} judges with HarmBench's published prompt, which is not part of this "
                f"package: name a text or Python file that holds it (fields {{behavior}}, {{generation}}) "
                f"with --judge_prompt, or use harmbench-cls-own."
            )
        prompt = prompt_text(described.name, given.prompt, ("behavior", "generation"))
    local = _local(described, given, "generation")
    return HarmBenchJudge(described.name, local, described.settings, prompt, given.threshold)


def _endpoint(described: Preset, given: Resources) -> Judge:
    from regap_patch.judges.endpoint import EndpointJudge

    if given.endpoint is None or given.endpoint_model is None:
        raise JudgeError(
            f"{described.name} needs a server: pass --judge_endpoint http://HOST:PORT/v1 and "
            f"--judge_endpoint_model NAME."
        )
    if given.offline and urlsplit(given.endpoint).hostname not in LOOPBACK:
        raise JudgeError(
            f"{described.name} was to be offline, but {given.endpoint} is another machine: leave --offline "
            f"or that endpoint out."
        )
    if given.rubric is None:
        name = described.settings["rubric"]
        home = resources.files("regap_patch.judges").joinpath("rubrics")
        rubric = home.joinpath(name).read_text(encoding="utf-8")
    else:
        try:
            rubric = given.rubric.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise JudgeError(
                f"The rubric {given.rubric} was to be read, but that failed: {error}."
            ) from error
    return EndpointJudge(
        described.name,
        given.endpoint,
        given.endpoint_model,
        rubric,
        described.settings,
        timeout=given.timeout,
        retries=given.retries,
    )


def _local(described: Preset, given: Resources, head: Head) -> LocalModel:
    from regap_patch.judges.local_model import load_local_model

    path = str(given.models.get(described.name, described.settings["weights"]))
    return load_local_model(
        described.name, path, head, device=given.device, dtype=given.dtype, offline=given.offline
    )


KINDS: Mapping[str, Callable[[Preset, Resources], Judge]] = {
    "keywords": _keywords,
    "rules": _rules,
    "ingredients": _ingredients,
    "scorer": _scorer,
    "beaver-dam": _beaver_dam,
    "llama-guard": _llama_guard,
    "harmbench": _harmbench,
    "endpoint": _endpoint,
}
