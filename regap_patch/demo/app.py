"""The page: gradio's controls around `handlers`. Each event has a name by which a program can call it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

# Nobody is told that the demo runs: read when gradio and the hub's library are imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
from gradio_client.utils import is_http_url_like

from regap_patch.demo.examples import Example
from regap_patch.demo.handlers import Form, Handlers, remembered, titles
from regap_patch.demo.requests import MODES, MOST_TOKENS
from regap_patch.demo.session import Session

TITLE = "Two models, one request"
ABOUT = (
    "The same prompt and picture go to both models, with the same seed. What one request shows is an example "
    "and no rate: `regap eval` measures rates."
)
KINDS = [("not said", "unknown"), ("harmful", "harm"), ("harmless", "benign")]
HOUR = 3600
ADDRESS = "A file was expected, not an address: upload the picture."


def build_app(session: Session, examples: Sequence[Example] = ()) -> gr.Blocks:
    """The page of a session, not served yet.

    Args:
        session: that does the work.
        examples: requests that one click fills in.
    """
    return _Page(Handlers(session)).build(examples)


class _Page:
    """The controls, and what each does."""

    def __init__(self, handlers: Handlers) -> None:
        self.does = handlers

    def build(self, examples: Sequence[Example]) -> gr.Blocks:
        app: gr.Blocks
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR // 4, HOUR)) as app:
            gr.Markdown(f"# {TITLE}\n{ABOUT}")
            self._controls()
            self.notice = gr.HTML(label="Notice", elem_id="notice")
            self._answers()
            self._more()
            self.latest = gr.State(None, time_to_live=HOUR)
            self.history = gr.State([], time_to_live=HOUR)
            if examples:
                self._examples(examples)
            self._events()
            app.unload(self._leave)
        app.queue(default_concurrency_limit=None, max_size=256)
        _fetch_nothing(app)
        return app

    def _controls(self) -> None:
        with gr.Row():
            with gr.Column(min_width=280):
                picture: Any = gr.Image(
                    label="Picture",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=240,
                    elem_id="picture",
                )
                picture.preprocess = _path_of  # we look at a file before any decoder does
                self.picture = picture
                self.shown = gr.HTML(label="Shown", elem_id="shown")
            with gr.Column(min_width=280):
                self.prompt = gr.Textbox(label="Prompt", lines=2, max_lines=6, elem_id="prompt")
                self.mode = gr.Radio(
                    list(MODES),
                    value="real",
                    label="Image mode: what stands in the picture's place",
                    elem_id="mode",
                )
                self.kind = gr.Radio(
                    KINDS,
                    value="unknown",
                    label="The request is (judges of refusals need to know)",
                    elem_id="kind",
                )
                with gr.Row():
                    self.go = gr.Button("Ask both", variant="primary", elem_id="ask")
                    self.all = gr.Button("Compare all modes", elem_id="ask-modes")
                    self.halt = gr.Button("Stop", elem_id="stop")
                with gr.Accordion("Drawing of answers, the same on both sides", open=False):
                    self.seed = gr.Number(0, label="Seed", precision=0)
                    self.tokens = gr.Slider(1, MOST_TOKENS, 64, step=1, label="Most new tokens")
                    self.temperature = gr.Slider(0, 2, 0, label="Temperature (0: the likeliest answer)")

    def _answers(self) -> None:
        self.defenses, self.texts, self.signs = [], [], []
        with gr.Row():
            for where, side in zip(("left", "right"), self.does.session.sides, strict=True):
                with gr.Column(min_width=280, elem_id=where):
                    gr.Markdown(f"## {where.capitalize()}")
                    self.texts.append(
                        gr.Textbox(
                            label=f"Answer of {side.name}",
                            lines=6,
                            max_lines=20,
                            interactive=False,
                            elem_id=f"{where}-text",
                        )
                    )
                    self.signs.append(gr.HTML(label=f"Signs of {side.name}", elem_id=f"{where}-signs"))
                    self.defenses.append(
                        gr.CheckboxGroup(
                            list(side.defenses), label=f"Defences of {side.name}", visible=bool(side.defenses)
                        )
                    )

    def _more(self) -> None:
        with gr.Accordion("All image modes", open=False) as self.modes_fold:
            self.modes = gr.HTML(label="Modes", elem_id="modes")
        with gr.Accordion("Gap by layer", open=False):
            self.measure = gr.Button("Measure this input", elem_id="measure")
            self.curve = gr.HTML(label="Curve", elem_id="curve")
        with gr.Row():
            with gr.Column(min_width=260):
                self.past = gr.Dropdown([], label="History of this tab", elem_id="history")
            with gr.Column(min_width=260):
                self.save = gr.DownloadButton("Export this comparison", interactive=False, elem_id="export")
                self.with_texts = gr.Checkbox(
                    False, label="Export with picture and texts that are redacted otherwise"
                )
        self.record = gr.JSON(label="Record", visible=False)
        self.records = gr.JSON(label="Records", visible=False)

    def _examples(self, examples: Sequence[Example]) -> None:
        keep = self.does.files.keep
        rows = [
            [
                None if one.picture is None else keep("example", ".png", one.picture.png),
                one.prompt,
                one.mode,
                one.kind,
            ]
            for one in examples
        ]
        controls = [self.picture, self.prompt, self.mode, self.kind]
        gr.Examples(rows, controls, label="Examples", cache_examples=False, api_visibility="private")

    def _events(self) -> None:
        form = [
            self.picture,
            self.prompt,
            self.mode,
            self.kind,
            self.seed,
            self.tokens,
            self.temperature,
            *self.defenses,
        ]
        shown = [self.picture, self.prompt, self.mode, self.seed]
        columns = [self.notice, self.texts[0], self.signs[0], self.texts[1], self.signs[1], self.record]
        remembered_in = [self.latest, self.history, self.past]
        redraw: dict[str, Any] = {"inputs": [self.latest, self.with_texts], "outputs": self.save}
        asked = gr.on(
            [self.go.click, self.prompt.submit],
            self._ask,
            [*form, self.history],
            [*columns, *remembered_in],
            api_name="ask",
            show_progress="hidden",
        )
        asked.then(self._export, **redraw, api_name="export")
        self.all.click(
            lambda: gr.Accordion(open=True), None, self.modes_fold, api_visibility="private", queue=False
        )
        self.all.click(
            self._ask_modes,
            form,
            [self.notice, self.modes, self.records],
            api_name="ask_modes",
            show_progress="hidden",
        )
        self.measure.click(self._layers, shown, [self.notice, self.curve], api_name="layers")
        self.halt.click(self._stop, None, self.notice, api_name="stop", queue=False)
        self.picture.upload(
            self.does.check_picture, self.picture, [self.picture, self.notice], api_name="check_picture"
        )
        gr.on(
            [
                *(self.picture.change, self.mode.change, self.seed.change),
                *(self.prompt.blur, self.prompt.submit),  # what is drawn depends on the prompt
            ],
            self._shown,
            shown,
            self.shown,
            api_name="shown",
            show_progress="hidden",
        )
        recalled = self.past.input(
            self._recall, [self.past, self.history], [*columns, self.latest], api_visibility="private"
        )
        recalled.then(self._export, **redraw, api_visibility="private")
        self.with_texts.change(self._export, **redraw, api_visibility="private")

    # gradio names the parameters of a call from a program after those of the function.
    def _ask(
        self,
        request: gr.Request,
        picture: Any,
        prompt: Any,
        mode: Any,
        kind: Any,
        seed: Any,
        max_new_tokens: Any,
        temperature: Any,
        left_defenses: Any,
        right_defenses: Any,
        history: Any,
    ) -> Iterator[Any]:
        form = Form(
            picture, prompt, mode, kind, seed, max_new_tokens, temperature, left_defenses, right_defenses
        )
        for columns, finished in self.does.ask(form, _client(request)):
            if finished is None:
                yield *columns, gr.skip(), gr.skip(), gr.skip()
                continue
            longer = remembered(history, finished)
            lines = titles(longer)
            yield *columns, finished, longer, gr.Dropdown(lines, value=lines[0])

    def _ask_modes(
        self,
        request: gr.Request,
        picture: Any,
        prompt: Any,
        mode: Any,
        kind: Any,
        seed: Any,
        max_new_tokens: Any,
        temperature: Any,
        left_defenses: Any,
        right_defenses: Any,
    ) -> Iterator[Any]:
        form = Form(
            picture, prompt, mode, kind, seed, max_new_tokens, temperature, left_defenses, right_defenses
        )
        yield from self.does.ask_modes(form, _client(request))

    def _layers(self, request: gr.Request, picture: Any, prompt: Any, mode: Any, seed: Any) -> Any:
        return self.does.layers(Form(picture, prompt, mode, seed=seed), _client(request))

    def _shown(self, picture: Any, prompt: Any, mode: Any, seed: Any) -> str:
        return self.does.shown(Form(picture, prompt, mode, seed=seed))

    def _stop(self, request: gr.Request) -> str:
        return f'<p class="demo-note" role="status">{self.does.stop(_client(request))}</p>'

    def _leave(self, request: gr.Request) -> None:
        self.does.stop(_client(request))

    def _recall(self, line: str, history: list[Any]) -> Any:
        chosen = history[titles(history).index(line)]
        return *self.does.columns(chosen), chosen

    def _export(self, latest: Any, texts: bool) -> Any:
        path = self.does.export(latest, bool(texts))
        return gr.DownloadButton(value=path, interactive=path is not None)


def _path_of(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _client(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _fetch_nothing(app: gr.Blocks) -> None:
    """A client may name an address where a file belongs, and gradio would fetch it."""
    blocks: dict[int, Any] = app.blocks
    for block in blocks.values():
        move = block.async_move_resource_to_block_cache

        async def local(path: Any, move: Any = move) -> Any:
            if path and is_http_url_like(str(path)):
                raise gr.Error(ADDRESS, print_exception=False)
            return await move(path)

        block.async_move_resource_to_block_cache = local
