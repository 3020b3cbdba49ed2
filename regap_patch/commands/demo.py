"""`regap demo`: from flags to two sides, judges and a page."""

from __future__ import annotations

import argparse
import hmac
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regap_patch.commands.eval_defense import settings_of
from regap_patch.commands.eval_run import go_offline
from regap_patch.commands.eval_target import ENDPOINT_ARGS, LOCAL_ARGS, pairs, target_of
from regap_patch.errors import ConfigError, DemoError, ReGapError

if TYPE_CHECKING:
    from regap_patch.demo.opening import Opening
    from regap_patch.demo.side import Side

QUICKSTART = Path("playground/runs/quickstart")
ALIASES = {"keyword": "keyword-own"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_demo(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "demo",
        help="two models side by side in a browser: one prompt and picture, what each says, and the gap",
        description="Serves a page on this machine on which one prompt and one picture go to two models. "
        "Without --left and --right these are the two checkpoints of `make quickstart`.",
    )
    add = parser.add_argument
    model = "checkpoint's folder or hub name, or an address http://HOST:PORT/v1 with model=NAME in --{}_args"
    for where, name in (("left", "off"), ("right", "on")):
        default = str(QUICKSTART / f"llava-finetune-{name}")
        add(f"--{where}", default=default, metavar="MODEL", help=f"{model.format(where)} (%(default)s)")
    for where in ("left", "right"):
        known = f"of a checkpoint: {', '.join(LOCAL_ARGS)}; of an endpoint: {', '.join(ENDPOINT_ARGS)}"
        add(f"--{where}_args", default="", help=f"name=value, commas between; {known}")
    for where in ("left", "right"):
        add(
            f"--{where}_gap",
            type=Path,
            help="what `regap gap` wrote of it (gap.json or regap.json beside it)",
        )
    add("--conv_mode", help="LLaVA: conversation template (vicuna_v1); else text with {text} and <image>")
    add("--device", help="where both models run (a GPU, if there is one)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="float32 on the CPU, else float16")
    add(
        "--judge", default="keyword", help="presets, commas between; an unknown name lists them (%(default)s)"
    )
    add("--judge_model", action="append", default=[], metavar="JUDGE=PATH", help="weights of a judge")
    add("--keywords", action="append", type=Path, default=[], metavar="PATH", help="published keyword lists")
    add("--judge_endpoint", metavar="URL", help="OpenAI-compatible server of a judge")
    add("--judge_endpoint_model", metavar="NAME", help="the model's name there")
    add(
        "--defense_args",
        default="",
        help="NAME.SETTING=value, commas between: cmrm.vectors=FOLDER offers cmrm",
    )
    add("--irrelevant_images", type=Path, help="folder of pictures for mode irrelevant (drawn shapes)")
    add("--host", default="127.0.0.1", help="address to listen at; others than this machine's need --auth")
    add("--port", type=int, default=7860, help="0 for any free one (%(default)s)")
    add("--root_path", default="", help="path under which a proxy shows the page")
    add("--auth", type=Path, metavar="FILE", help="lines of NAME:PASSWORD; nobody else is let in")
    add("--offline", action="store_true", help="no network: neither hubs nor other machines are asked")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    go_offline(arguments.offline)
    auth = None if arguments.auth is None else _doorkeeper(arguments.auth)
    if arguments.host not in LOOPBACK and auth is None:
        raise ConfigError(
            f"--host {arguments.host} lets others in, who could ask these models anything: add --auth FILE."
        )
    try:
        from regap_patch.demo.app import build_app
    except ImportError as error:
        raise DemoError(f"The page needs gradio ({error}): pip install 'regap[demo]'.") from error
    from regap_patch.demo.examples import drawn_pictures, examples, pictures_of
    from regap_patch.demo.opening import Opening
    from regap_patch.demo.serving import Where, serve, until_ended
    from regap_patch.demo.session import Session

    opening, drawn = Opening(print), drawn_pictures()
    left, right = (_side(arguments, where, opening) for where in ("left", "right"))
    if left.name == right.name:
        left.name, right.name = f"{left.name} (left)", f"{right.name} (right)"
    pool = drawn if arguments.irrelevant_images is None else pictures_of(arguments.irrelevant_images)
    session = Session(left, right, _judges(arguments), pool)
    app = build_app(session, examples(drawn, Path(arguments.left).parent / "benchmark"))
    where = Where(arguments.host, arguments.port, arguments.root_path, auth)
    try:
        address = serve(app, where)
    except OSError as error:
        raise DemoError(f"The page was to be served at port {arguments.port}: {error}") from error
    print(f"{address}\nCtrl-C ends it.", flush=True)
    try:
        until_ended()
    finally:
        session.close()
        app.close(verbose=False)  # what was uploaded goes with it
    return 0


def _side(arguments: argparse.Namespace, where: str, opening: Opening) -> Side:
    from regap_patch.demo.reference import find_reference
    from regap_patch.demo.side import Side

    model, given = getattr(arguments, where), getattr(arguments, f"{where}_args")
    if str(QUICKSTART) in model and not Path(model).exists():
        raise DemoError(f"{model} is not there yet: run `make quickstart`, or name a model with --{where}.")
    address = model.startswith(("http://", "https://"))
    asked = argparse.Namespace(
        model="endpoint" if address else model,
        model_args=",".join(filter(None, (f"base_url={model}" if address else "", given))),
        conv_mode=arguments.conv_mode,
        device=arguments.device,
        dtype=arguments.dtype,
        offline=arguments.offline,
        no_parity=True,
    )

    def make() -> Any:
        return target_of(asked)[0]

    try:
        make()  # loads nothing; what is wrong with the flags is said before the page is there
    except ConfigError:
        raise
    except ReGapError:
        pass  # what is wrong with the model is said in its column
    name = pairs(given, f"--{where}_args", ENDPOINT_ARGS).get("model", model) if address else Path(model).name
    settings = settings_of(arguments.defense_args)
    return Side(
        name,
        lambda: opening.open(make),
        lambda target, names: _defended(target, names, settings),
        _offered(settings, inside=not address),
        find_reference(model, getattr(arguments, f"{where}_gap")),
    )


def _of(settings: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key.partition(".")[0] in names}


def _offered(settings: dict[str, str], *, inside: bool) -> tuple[str, ...]:
    """Defences that need nothing that was not given; behind an address those that need no model's inside."""
    from regap_patch.defenses import find_defense, make_stack
    from regap_patch.defenses.table import defense_names

    known = defense_names()
    unknown = [key for key in settings if key.partition(".")[0] not in known]
    if unknown:
        find_defense(unknown[0].partition(".")[0])  # says what there is
    found = []
    for name in known:
        own = _of(settings, [name])
        try:
            make_stack(name, own)
        except ConfigError:
            if own:
                raise
            continue
        if inside or not find_defense(name).needs_layers:
            found.append(name)
    return tuple(found)


def _defended(target: Any, names: Sequence[str], settings: dict[str, str]) -> Any:
    from regap_patch.commands.defended import DefendedTarget
    from regap_patch.defenses import make_stack

    return DefendedTarget(target, make_stack("+".join(names), _of(settings, names)))


def _judges(arguments: argparse.Namespace) -> list[Any]:
    from regap_patch.judges import make_judge
    from regap_patch.judges.make import Resources

    names = [name.strip() for name in arguments.judge.split(",") if name.strip()]
    given = [pair.partition("=") for pair in arguments.judge_model]
    wrong = [name for name, equals, path in given if not equals or not path]
    if wrong:
        raise ConfigError(f"--judge_model takes JUDGE=PATH, found {wrong[0]!r}: write beaver-dam-7b=FOLDER.")
    resources = Resources(
        models={name: path for name, _, path in given},
        keywords=tuple(arguments.keywords),
        endpoint=arguments.judge_endpoint,
        endpoint_model=arguments.judge_endpoint_model,
        device=arguments.device or "auto",
        offline=arguments.offline,
    )
    return [make_judge(ALIASES.get(name, name), resources) for name in names]


def _doorkeeper(file: Path) -> Callable[[str, str], bool]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--auth {file} was to be read, but that failed: {error}.") from error
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    if not known or not all(name and password for name, password in known.items()):
        raise ConfigError(f"--auth {file} is to hold lines of NAME:PASSWORD, and holds none: write one.")

    def knows(name: str, password: str) -> bool:
        expected = known.get(name, "")
        return hmac.compare_digest(expected.encode(), password.encode()) and bool(expected)

    return knows
