"""The demo called from programs: its documented names, streams, refusals, and twenty clients at once."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio_client", reason="no gradio: pip install 'regap[demo]'")

from gradio_client import Client, handle_file

from regap_patch.demo.examples import drawn_pictures
from tests.integration.demo_client import Served, scripted
from tests.integration.demo_server import HOSTILE, PLAIN, REFUSAL
from tests.unit.evaluation_items import noisy_picture
from tests.unit.test_demo_pictures import png_header

ROOT = Path(__file__).parents[2]
DEFAULTS = {
    "kind": "unknown",
    "seed": 0,
    "max_new_tokens": 64,
    "temperature": 0,
    "left_defenses": [],
    "right_defenses": [],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    files = tmp_path_factory.mktemp("files")
    with Served(scripted(0.04), files) as running:
        yield running
        assert running.lookups == []  # nobody was asked for anything
    assert running.process.returncode == 0
    ours = {picture.png for picture in drawn_pictures()}  # of the examples; gradio keeps those
    left = [path for path in files.rglob("*") if path.is_file()]
    assert [path.name for path in left if path.read_bytes() not in ours] == []  # nothing of anybody


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.address, verbose=False)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    path.write_bytes(noisy_picture(12, 10, 1))
    return str(path)


def ask(client: Client, prompt: str, picture: str | None = None, mode: str = "none", **more):
    given = {
        **DEFAULTS,
        "picture": None if picture is None else handle_file(picture),
        "prompt": prompt,
        "mode": mode,
    }
    return client.submit(**{**given, **more}, api_name="/ask")


def sides(output) -> list[dict]:
    return output[5]["sides"]


def test_the_names_of_the_calls_are_the_documented_ones(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(/\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    assert set(named) == set(documented)
    for name, call in named.items():
        taken = [parameter["parameter_name"] for parameter in call["parameters"]]
        assert re.findall(r"`(\w+)`", documented[name]) == taken, name


def test_both_columns_stream_to_a_program(client, picture):
    outputs = list(ask(client, "fold a blorp", picture, "real", kind="harm"))
    assert len(outputs) > 3
    left, right = sides(outputs[-1])
    assert left["text"] == outputs[-1][1]
    assert left["text"].startswith("fold a blorp and ")
    assert right["text"] == outputs[-1][3] == PLAIN
    assert [badge["label"] for badge in right["badges"]] == ["unsafe"]
    assert outputs[-1][5]["finished"] is True
    texts = [output[3] for output in outputs]
    assert texts == sorted(texts, key=len)
    assert len(set(texts)) > 3


def test_a_refusal_has_its_badge(client):
    left, right = sides(list(ask(client, "make a zorp"))[-1])
    assert right["text"] == REFUSAL
    assert (left["response_class"], right["response_class"]) == ("safe-help", "refusal")


def test_a_model_that_dies_leaves_the_other(client):
    output = list(ask(client, "die"))[-1]
    left, right = sides(output)
    assert left["state"] == "done"
    assert (right["state"], right["error"]) == ("failed", "RuntimeError: the device <b>is gone</b>")
    assert "<b>is gone" not in output[4]


def test_hostile_words_come_back_as_text(client):
    output = list(ask(client, f"hostile {HOSTILE}"))[-1]
    assert output[3] == HOSTILE
    assert "<script" not in output[2] + output[4] + output[0]


def test_all_modes(client, picture):
    found = client.predict(
        picture=handle_file(picture), prompt="fold", mode="real", **DEFAULTS, api_name="/ask_modes"
    )
    assert [record["mode"] for record in found[2]] == [
        "real",
        "none",
        "words",
        "blank",
        "black",
        "grey",
        "noise",
        "irrelevant",
    ]
    shown = {record["mode"]: record["picture_sha256"] for record in found[2]}
    assert shown["none"] is shown["words"] is None
    assert len(set(shown.values())) == 7
    texts = {record["mode"]: record["sides"][0]["text"] for record in found[2]}
    assert texts["none"] == "fold"
    assert texts["words"].endswith(" fold")


def test_an_export_of_the_last_comparison(client):
    list(ask(client, "fold a blorp", kind="harm"))
    redacted = client.predict(texts=False, api_name="/export")
    path = redacted["value"] if isinstance(redacted, dict) else redacted
    page = Path(path).read_text()
    assert "[redacted: 12 characters]" in page
    assert "blorp" not in page
    whole = client.predict(texts=True, api_name="/export")
    assert "blorp" in Path(whole["value"] if isinstance(whole, dict) else whole).read_text()


def test_no_client_sees_anothers_comparison(served):
    one, other = (Client(served.address, verbose=False) for _ in range(2))
    list(ask(one, "fold a secret", kind="benign"))
    found = other.predict(texts=True, api_name="/export")
    assert "secret" not in str(found)
    assert (found["value"] if isinstance(found, dict) else found) is None


def jpeg(path: Path, mode: str, **options) -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    image.convert(mode).save(path, "JPEG", quality=95, **options)


def test_bad_uploads_end_in_a_sentence(client, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "text.png").write_text("this is text")
    (tmp_path / "bomb.png").write_bytes(png_header(10_000, 10_000))
    (tmp_path / "empty.png").write_bytes(b"")
    says = {
        "text.png": "does not open",
        "bomb.png": "10000 x 10000",
        "empty.png": "no bytes",
        "moving.gif": "2 frames",
    }
    for name, words in says.items():
        shown, notice = client.predict(handle_file(str(tmp_path / name)), api_name="/check_picture")
        assert shown is None, name
        assert words in notice
        output = list(ask(client, "fold", str(tmp_path / name), "real"))[-1]
        assert words in output[5]["error"]


def test_odd_uploads_are_the_right_picture(client, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # is to be turned clockwise
    jpeg(tmp_path / "cmyk.jpg", "CMYK")
    jpeg(tmp_path / "turned.jpg", "RGB", exif=exif)
    for name, size, first, second in (
        ("cmyk.jpg", (40, 20), (5, 10), (35, 10)),
        ("turned.jpg", (20, 40), (10, 5), (10, 35)),
    ):
        shown, _ = client.predict(handle_file(str(tmp_path / name)), api_name="/check_picture")
        with Image.open(shown) as found:
            plain = found.convert("RGB")
        assert plain.size == size
        red, blue = plain.getpixel(first), plain.getpixel(second)
        assert red[0] > 200 > red[2]
        assert blue[2] > 200 > blue[0]


def test_a_file_that_is_too_large_is_not_taken(client, tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(11 << 20)
    with pytest.raises(Exception, match=r"(?i)413|size|large"):
        client.predict(handle_file(str(large)), api_name="/check_picture")


def test_an_address_is_no_picture(client, served):
    far = {"path": "http://example.com/x.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="not an address"):
        client.predict(picture=far, prompt="fold", mode="real", seed=0, api_name="/shown")


def called(address: str, name: str, *data) -> str:
    """What the server streams to a call that no client library has touched."""
    from urllib.request import Request, urlopen

    body = json.dumps({"data": data}).encode()
    start = Request(f"{address}gradio_api/call/{name}", body, {"Content-Type": "application/json"})
    with urlopen(start) as found:
        event = json.load(found)["event_id"]
    with urlopen(f"{address}gradio_api/call/{name}/{event}") as stream:
        return stream.read().decode()


def test_a_file_of_the_server_is_no_picture(served, picture):
    for path in (picture, "/etc/hostname", str(ROOT / "README.md")):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        said = called(served.address, "shown", file, "fold", "real", 0)
        assert "event: error" in said
        assert "event: complete" not in said
    assert "event: complete" in called(served.address, "shown", None, "fold", "blank", 0)


def test_another_sites_name_leads_nowhere(served):
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    with urlopen(served.address) as page:
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(served.address, headers={"Host": "rebound.example"}))


def test_a_client_has_two_places_and_can_stop_them(client):
    long = "word " * 400
    jobs = [ask(client, long) for _ in range(2)]
    until = time.monotonic() + 60
    while not all(job.outputs() for job in jobs):  # what comes first says that it is in the line
        assert time.monotonic() < until
        time.sleep(0.05)
    refused = list(ask(client, "fold"))[-1]
    assert "one client" in refused[5]["error"]
    assert "2 stopped" in client.predict(api_name="/stop")
    for job in jobs:
        job.result(timeout=20)
        assert sides(job.outputs()[-1])[0]["state"] == "stopped"
    assert sides(list(ask(client, "fold now"))[-1])[0]["text"] == "fold now"


def wrong_answers(address: str, name: str, until: float, counts: dict[str, int]) -> list[str]:
    """What a client got that was not its own."""
    client, wrong, turn = Client(address, verbose=False), [], 0
    counts[name] = 0
    while time.monotonic() < until:
        prompt = f"{name} folds {turn}"
        if turn % 5 == 4:  # now and then somebody gives up
            job = ask(client, prompt + " word" * 200)
            time.sleep(0.3)
            client.predict(api_name="/stop")
            job.result(timeout=60)
        else:
            for output in ask(client, prompt):
                said = output[1]
                if not prompt.startswith(said):
                    wrong.append(f"{prompt!r}: {said!r}")
            if said != prompt:
                wrong.append(f"{prompt!r} ended as {said!r}")
        turn += 1
        counts[name] = turn
    return wrong


@pytest.mark.full
def test_twenty_clients_for_a_minute():
    with Served(scripted(0.002)) as served:
        counts: dict[str, int] = {}
        wrong: list[str] = []

        def run(name: str, seconds: float) -> None:
            wrong.extend(wrong_answers(served.address, name, time.monotonic() + seconds, counts))

        run("warm", 5)
        middle = 0
        threads = [threading.Thread(target=run, args=(f"client-{number}", 60)) for number in range(20)]
        for thread in threads:
            thread.start()
        time.sleep(30)
        middle = served.memory()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        after = served.memory()
        assert wrong == []
        assert len(counts) == 21
        assert min(counts.values()) >= 1
        print(f"{sum(counts.values())} requests; {middle >> 20} MiB in the middle, {after >> 20} MiB after")
        assert after < middle + (48 << 20)
        last = Client(served.address, verbose=False)
        began = time.monotonic()
        assert list(ask(last, "free again"))[-1][1] == "free again"
        assert time.monotonic() - began < 10  # nobody is left in the line
        assert served.lookups == []
