"""A page of results in a browser: what a person sees, chooses and hears."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Call
from PIL import Image
from test_page import EGYPTIAN, FAILED, HOSTILE, TABBY, TERMS, explanation, record

from hiera_cli.inputs.source import Source
from hiera_cli.outputs.page.file import PageFile
from hiera_cli.pipeline.prepare import prepare
from hiera_cli.system.utf8 import name_fields

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"),
]

CAT = SAMPLES / "cat.jpg"
DANE = {"rank": 1, "index": 246, "wnid": "n02109047", "label": "Great Dane", "score": 0.5}
SHUTTLE = {"rank": 1, "index": 812, "wnid": "n04266014", "label": "space shuttle", "score": 0.99}


@pytest.fixture(scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page that the browser shows."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """Of the elements, as they stand in the document."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector
        )
        return found

    def labels(self) -> list[str]:
        """Of the photos in the grid."""
        return self.texts(".tile .label")

    def shown(self) -> str:
        """What is told of how many there are."""
        return self.texts("#shown")[0]

    def element(self, selector: str) -> Any:
        """One of them, to use."""
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Click one."""
        self.element(selector).click()

    def choose(self, identifier: str, value: str) -> None:
        """One of a list."""
        self.element(f"#{identifier} option[value={value}]").click()

    def type(self, *keys: str) -> None:
        """Type, wherever the keyboard is."""
        self.driver.switch_to.active_element.send_keys(*keys)
        self.a_frame()

    def a_frame(self) -> None:
        """Wait until the page has drawn what is new."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def focused(self) -> str:
        """What the keyboard is at, as it is spoken."""
        spoken: str = self.run("const e = document.activeElement; return e.getAttribute('aria-label') ?? e.id")
        return spoken

    def wait(self, condition: str) -> None:
        """Until an expression is true: an image has come, for instance."""
        self.driver.set_script_timeout(10)
        self.driver.execute_async_script(
            f"const end = arguments[0]; const look = () => ({condition}) ? end() : requestAnimationFrame(look); look()"
        )

    def console(self) -> list[str]:
        """What the browser has complained of since the last time, but for photos that there are not: most here."""
        messages = [each["message"] for each in self.driver.get_log("browser")]
        return [message for message in messages if "net::ERR_FILE_NOT_FOUND" not in message]


Open = Callable[..., Page]


@pytest.fixture
def page(_browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Write a page of records, and have the browser show it. It is to say nothing on the console, if it isn't asked."""
    shown = Page(_browser)

    def opened(
        *records: dict[str, Any],
        thumbnail: bytes | None = None,
        complete: bool = True,
        view: str = "",
        size: tuple[int, int] = (1280, 800),
    ) -> Page:
        path = tmp_path / "page.html"
        file = PageFile(str(path), overwrite=True)
        for chunk in file.of_records((each, None if each["error"] else thumbnail, "") for each in records):
            file.write(chunk)
        file.close(complete=complete)
        _browser.get("about:blank")
        _browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
        )
        shown.console()
        _browser.get((path if complete else tmp_path / "page.part.html").as_uri() + view)
        return shown

    yield opened
    assert shown.console() == []


@pytest.fixture(scope="module")
def thumbnail() -> bytes:
    """Of the cat."""
    made = prepare(Source(str(CAT)), thumbnails=True).thumbnail
    assert made is not None
    return made


def some() -> list[dict[str, Any]]:
    """Two cats, a dog, a rocket, one that failed, and one that has no label."""
    return [
        record("photos/b.jpg", {**EGYPTIAN, "rank": 1, "score": 0.3}, TABBY),
        record("photos/a.jpg", TABBY, EGYPTIAN),
        record("other/c.jpg", DANE),
        record("other/d.jpg", SHUTTLE),
        {**FAILED, "path": "other/broken.jpg"},
        record("other/none.jpg"),
    ]


def evaluated() -> list[dict[str, Any]]:
    """As evaluate writes them: three right, two cats taken for others, one failed."""
    tabby = {"name": "tabby", "index": 281, "wnid": "n02123045"}
    egyptian = {"name": "Egyptian cat", "index": 285, "wnid": "n02124075"}
    dane = {"name": "Great Dane", "index": 246, "wnid": "n02109047"}
    wrong = {"correct": False, "rank": None}
    right = {"correct": True, "rank": 1}
    return [
        record("1.jpg", TABBY, truth=tabby, **right),
        record("2.jpg", TABBY, EGYPTIAN, truth=egyptian, correct=False, rank=2),
        record("3.jpg", DANE, truth=dane, **right),
        record("4.jpg", DANE, truth=tabby, **wrong),
        record("5.jpg", DANE, truth=dane, **right),
        {**FAILED, "truth": tabby, **wrong},
    ]


# ---- what is shown


def test_each_photo_is_there_with_its_best_label_and_its_score(page: Open, thumbnail: bytes) -> None:
    shown = page(*some(), thumbnail=thumbnail)
    assert shown.labels() == ["Egyptian cat", "tabby", "Great Dane", "space shuttle", "the file is empty", "no label"]
    assert shown.texts(".tile .score") == ["30.0 %", "87.3 %", "50.0 %", "99.0 %", "broken.jpg", "none.jpg"]
    assert shown.texts("#about") == ["demo · 6 photos · 1 failed"]
    assert shown.shown() == "6 photos"
    assert shown.run("return document.getElementById('notice').hidden")
    shown.wait("[...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth === 226)")
    assert shown.element(".tile").get_attribute("aria-label") == "Egyptian cat, 30.0 %, photos/b.jpg"
    assert [each.aria_role for each in shown.driver.find_elements("css selector", "#grid, .row")] == [
        "grid",
        "row",
        "row",
    ]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("tabby", ["tabby"]),
        ("CAT", ["Egyptian cat", "tabby"]),
        ("carnivore photos", ["Egyptian cat", "tabby"]),
        ("dog", ["Great Dane"]),
        ("other/", ["Great Dane", "space shuttle", "the file is empty", "no label"]),
        ("empty", ["the file is empty"]),
        ("zebra", []),
    ],
)
def test_words_are_found_in_labels_in_the_concepts_above_and_in_paths(page: Open, words: str, left: list[str]) -> None:
    shown = page(*some())
    shown.element("#words").send_keys(words)
    shown.a_frame()
    assert shown.labels() == left
    assert shown.shown() == f"{len(left)} of 6 photos"
    assert shown.element("#nothing").is_displayed() == (not left)
    shown.element("#words").send_keys(Keys.ESCAPE)
    shown.a_frame()
    assert len(shown.labels()) == 6


def test_what_is_shown_can_be_all_or_what_failed_or_what_scores_enough(page: Open) -> None:
    shown = page(*some())
    assert shown.texts("#status option") == ["all (6)", "labelled (4)", "without a label (1)", "failed (1)"]
    shown.choose("status", "failed")
    assert shown.labels() == ["the file is empty"]
    shown.choose("status", "labelled")
    shown.run("const e = document.getElementById('least'); e.value = 50; e.dispatchEvent(new Event('input'))")
    shown.a_frame()
    assert shown.labels() == ["tabby", "Great Dane", "space shuttle"]
    assert shown.texts("#least-shown") == ["50 %"]


@pytest.mark.parametrize(
    ("order", "labels"),
    [
        ("best", ["space shuttle", "tabby", "Great Dane", "Egyptian cat", "the file is empty", "no label"]),
        ("least", ["Egyptian cat", "Great Dane", "tabby", "space shuttle", "the file is empty", "no label"]),
        ("path", ["the file is empty", "Great Dane", "space shuttle", "no label", "tabby", "Egyptian cat"]),
        ("label", ["Egyptian cat", "Great Dane", "space shuttle", "tabby", "the file is empty", "no label"]),
    ],
)
def test_photos_are_sorted(page: Open, order: str, labels: list[str]) -> None:
    shown = page(*some())
    shown.choose("sort", order)
    assert shown.labels() == labels


def test_photos_are_grouped_by_label_and_by_concept(page: Open) -> None:
    shown = page(*some())
    shown.choose("group", "label")
    assert shown.texts("h2")[:-1] == ["Egyptian cat 1", "Great Dane 1", "space shuttle 1", "tabby 1", "no label 2"]
    shown.choose("group", "concept")
    assert shown.texts("#grid h2") == ["carnivore 3", "space shuttle 1", "no concept 2"]
    shown.click("#grid h2 button")
    assert shown.texts("#grid h2") == ["domestic cat 2", "Great Dane 1"]
    assert shown.labels() == ["Egyptian cat", "tabby", "Great Dane"]
    assert shown.focused() == "Leave carnivore"
    shown.type(Keys.ENTER)
    assert shown.shown() == "6 photos"


def test_a_label_or_a_concept_is_chosen_from_a_list_with_counts(page: Open) -> None:
    shown = page(*some(), record("more/e.jpg", DANE))
    assert shown.texts("#choices .choice") == ["Great Dane 2", "Egyptian cat 1", "space shuttle 1", "tabby 1"]
    shown.click("#choices .choice")
    assert shown.labels() == ["Great Dane", "Great Dane"]
    assert shown.element("#choices .choice").get_attribute("aria-pressed") == "true"
    assert shown.run("return document.activeElement.className") == "choice"
    shown.click("#by-concept")
    assert shown.texts("#choices .choice")[:3] == ["carnivore 4", "domestic cat 2", "Egyptian cat 1"]
    shown.click("#choices .choice")
    assert shown.shown() == "4 of 7 photos"
    shown.click("#choices .toggle")
    assert shown.texts("#choices .choice") == ["carnivore 4", "space shuttle 1"]
    shown.click("#clear")
    assert shown.shown() == "7 photos"


def test_a_view_is_kept_in_the_address(page: Open) -> None:
    shown = page(*some())
    shown.choose("sort", "best")
    shown.element("#words").send_keys("cat")
    shown.a_frame()
    assert shown.driver.current_url.endswith("page.html#words=cat&sort=best")
    shown.driver.refresh()
    assert shown.labels() == ["tabby", "Egyptian cat"]
    assert shown.element("#words").get_attribute("value") == "cat"
    shown = page(*some(), view="#only=concept:n02083346&sort=nonsense&least=x")  # canine
    assert shown.labels() == ["Great Dane"]


def test_a_page_of_one_photo_and_one_where_all_failed(page: Open) -> None:
    shown = page(record("a.jpg", TABBY))
    assert shown.shown() == "1 photo"
    shown.click(".tile")
    assert not shown.element("#previous").is_enabled()
    assert not shown.element("#next").is_enabled()
    shown = page(FAILED, FAILED)
    assert shown.texts("#about") == ["demo · 2 photos · 2 failed"]
    assert shown.texts("#group option") == ["none", "by label"]


# ---- keys


def test_the_keyboard_does_everything(page: Open) -> None:
    shown = page(*some(), *(record(f"{number}.jpg", DANE) for number in range(20)))
    shown.type("/")
    assert shown.focused() == "words"
    shown.type(Keys.ARROW_DOWN)
    assert shown.focused() == "Egyptian cat, 30.0 %, photos/b.jpg"
    shown.type(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert shown.focused() == "tabby, 87.3 %, photos/a.jpg"
    shown.type(Keys.ARROW_DOWN)
    assert shown.focused() == "Great Dane, 50.0 %, 0.jpg"
    shown.type(Keys.END)
    assert shown.focused() == "Great Dane, 50.0 %, 19.jpg"
    shown.type(Keys.HOME, Keys.ENTER)
    assert shown.texts("#large-place") == ["1 of 26"]
    shown.type(Keys.ARROW_RIGHT)
    assert shown.texts("#large-name") == ["a.jpg"]
    shown.type(Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ESCAPE)
    assert not shown.element("#large").is_displayed()
    assert shown.focused() == "tabby, 87.3 %, photos/a.jpg"
    assert len(shown.driver.find_elements("css selector", '.tile[tabindex="0"]')) == 1


def test_tab_comes_back_to_the_photo_that_it_left(page: Open) -> None:
    shown = page(*(record(f"{number}.jpg", DANE) for number in range(500)))
    shown.run("document.querySelector('.tile').focus()")
    shown.type(Keys.ARROW_RIGHT)
    shown.run("document.activeElement.blur(); scrollTo(0, 5000)")
    shown.choose("sort", "path")  # all is drawn anew
    shown.a_frame()
    places = shown.run("return [...document.querySelectorAll('.tile')].map((tile) => Number(tile.dataset.place))")
    assert places == sorted(places)
    assert places[1] == 1
    assert places[5] > 50
    shown.run("document.querySelector('#choices .choice').focus()")
    shown.type(Keys.TAB)
    assert shown.focused() == "Great Dane, 50.0 %, 1.jpg"


# ---- a photo, large


def test_a_click_shows_the_photo_large_with_all_its_labels_and_its_path(
    page: Open, tmp_path: Path, thumbnail: bytes
) -> None:
    shutil.copy(CAT, tmp_path / "a #1?%.jpg")
    many = [{**TABBY, "rank": rank, "label": f"label {rank}", "index": rank, "wnid": None} for rank in range(1, 61)]
    shown = page(record("a #1?%.jpg", *many, remarks=["Corrupt JPEG data"]), thumbnail=thumbnail)
    shown.click(".tile")
    shown.wait("document.getElementById('large-image').naturalWidth === 451")  # the file itself
    assert shown.element("#large-image").get_attribute("src").endswith("/a%20%231%3F%25.jpg")
    assert shown.texts("#large-labels .label") == [f"label {rank}" for rank in range(1, 61)]
    assert shown.texts("#large-remarks li") == ["Corrupt JPEG data"]
    assert shown.texts("#large-path") == ["a #1?%.jpg"]
    shown.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    shown.click("#copy")
    shown.wait("document.getElementById('copy').textContent === 'Copied'")
    copied = shown.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == "a #1?%.jpg"


def test_a_photo_that_is_gone_shows_its_thumbnail(page: Open, thumbnail: bytes) -> None:
    shown = page(record("gone.jpg", TABBY), thumbnail=thumbnail)
    shown.click(".tile")
    shown.wait("document.getElementById('large-image').naturalWidth === 226")


def test_what_failed_says_what_failed(page: Open) -> None:
    shown = page(FAILED)
    shown.click(".tile")
    assert shown.texts("#large-error") == ["DecodeError: the file is empty"]
    shown.wait("document.getElementById('large-missing').textContent === 'It could not be shown.'")


def test_a_photo_from_the_web_is_linked_and_nothing_is_fetched(page: Open, thumbnail: bytes) -> None:
    shown = page(record("https://example.org/a.jpg?b=<c>", TABBY), thumbnail=thumbnail)
    shown.click(".tile")
    assert shown.element("#large-open").get_attribute("href") == "https://example.org/a.jpg?b=%3Cc%3E"
    shown.wait("document.getElementById('large-image').naturalWidth === 226")
    fetched = shown.run("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [name for name in fetched if not name.startswith(("data:", "file:"))] == []


# ---- nothing from outside does anything here


def test_hostile_names_and_labels_are_text(page: Open, tmp_path: Path, thumbnail: bytes) -> None:
    names = [HOSTILE, "<img src=x onerror=alert(1)>.jpg", "javascript:alert(1)", "a\nb.jpg", "'\"`${alert(1)}.jpg"]
    hostile = {**TABBY, "label": HOSTILE, "wnid": HOSTILE}
    records = [record(name, hostile, remarks=[HOSTILE], model=HOSTILE) for name in names]
    odd = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(CAT, tmp_path / odd)
    text, path_bytes = name_fields(odd)
    records.append(record(text, hostile, path_bytes=path_bytes))
    records.append({**FAILED, "path": HOSTILE, "error": {"type": HOSTILE, "message": HOSTILE}})
    shown = page(*records, thumbnail=thumbnail)
    visible = HOSTILE.replace("\u2028", "\\u2028").replace("\u202e", "\\u202e").replace("\n", "\\u000a")
    assert shown.labels() == [visible] * 7
    shown.choose("group", "label")
    assert shown.texts("#grid h2")[0].startswith(visible)
    for number in range(7):
        shown.run("document.querySelectorAll('.tile')[arguments[0]].click()", number)
        if number == 5:
            shown.wait("document.getElementById('large-image').naturalWidth === 451")
            shown.run("navigator.clipboard.writeText = async (text) => { window.copied = text }")
            shown.click("#copy")
            assert shown.run("return copied") == "$'caf\\xe9.jpg'"
        shown.click("#close")
    assert (
        shown.run("return document.querySelectorAll('script, img[src=x]').length") == 2
    )  # the page's own, and its end


def test_the_policy_lets_no_other_script_run(page: Open) -> None:
    shown = page(*some())
    shown.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); const image = new Image(); image.src = 'http://127.0.0.1:9/x.jpg'"
    )
    shown.a_frame()
    assert shown.run("return window.ran") is None
    script, image = shown.console()
    assert "Content Security Policy directive" in script
    assert "Content Security Policy directive" in image


# ---- evaluate


def test_mistakes_come_first_with_the_truth_beside_the_answer(page: Open) -> None:
    shown = page(*evaluated())
    assert shown.texts("#about") == ["demo · 6 photos · 1 failed · 60.0 % right (3 of 5)"]
    assert shown.labels()[:3] == ["tabby 87.3 %", "Great Dane 50.0 %", "the file is empty"]
    assert shown.labels()[3:] == ["tabby", "Great Dane", "Great Dane"]
    assert shown.texts(".tile .score")[:2] == ["truth: Egyptian cat", "truth: tabby"]
    assert shown.texts("#status option") == ["all (6)", "mistakes (2)", "right (3)", "failed (1)"]
    shown.click(".tile")
    assert shown.texts("#large-note") == ["Mistake. The truth: Egyptian cat, which is its label number 2"]
    assert shown.texts("#large-labels .true .label") == ["Egyptian cat"]
    shown.click("#close")
    shown.choose("group", "truth")
    assert shown.texts("#grid h2") == ["tabby 3", "Great Dane 2", "Egyptian cat 1"]


def test_the_confusion_matrix_is_a_table_to_click(page: Open) -> None:
    shown = page(*evaluated())
    shown.click("#confusions > summary")
    shown.wait("document.querySelector('#matrix table')")
    assert shown.texts("#matrix thead th") == ["Egyptian cat", "Great Dane", "tabby"]
    rows = shown.run(
        "return [...document.querySelectorAll('#matrix tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    assert rows == [["Egyptian cat", "", "", "1"], ["Great Dane", "", "2", ""], ["tabby", "", "1", "1"]]
    cell = '#matrix button[aria-label="1: truth tabby, answer Great Dane"]'
    shown.click(cell)
    assert shown.shown() == "1 of 6 photos"
    assert shown.texts("#clear") == ["tabby → Great Dane ✕"]
    assert shown.element(cell).get_attribute("aria-pressed") == "true"
    shown.click(cell)
    shown.click('#matrix button[aria-label="2: truth Great Dane, answer Great Dane"]')
    assert shown.labels() == ["Great Dane", "Great Dane"]


@pytest.mark.usefixtures("demo_on_the_cpu")
def test_what_evaluate_writes_is_shown_as_it_is_meant(page: Open, call: Call, tmp_path: Path) -> None:
    for name, sample in (("cats/1.jpg", "cat"), ("tabby/2.jpg", "officer"), ("dog/3.jpg", "espresso")):
        (tmp_path / name).parent.mkdir()
        shutil.copy(SAMPLES / f"{sample}.jpg", name)
    assert call("evaluate", ".", "-m", "demo", "-o", "records.jsonl", "-q").status == 0
    shown = page(*map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines()))
    assert shown.texts("#about") == ["demo · 3 photos · 33.3 % right (1 of 3)"]
    assert sorted(shown.labels())[2] == "tabby"
    shown.click("#confusions > summary")
    shown.wait("document.querySelector('#matrix table')")
    assert shown.texts("#matrix thead th") == ["dog", "espresso", "military uniform", "tabby"]
    shown.click('#matrix button[aria-label="1: truth tabby, answer military uniform"]')
    shown.click(".tile")
    assert shown.texts("#large-note") == ["Mistake. The truth: tabby, tabby cat, which is its label number 3"]
    shown.click("#close")
    shown.click("#clear")
    shown.choose("status", "right")
    shown.click(".tile")
    assert shown.texts("#large-note") == ["Right: cat"]
    assert shown.texts("#large-labels .true .label") == ["tabby, tabby cat"]


# ---- where labels come from

# What of the canvas is lightest: its row and column of 7, and where its box lies in that of the image.
LIGHTEST = """
const canvas = document.getElementById("map");
const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
copy.drawImage(canvas, 0, 0);
const { data, width } = copy.getImageData(0, 0, canvas.width, canvas.height);
const light = (pixel) => 2 * data[4 * pixel] + 5 * data[4 * pixel + 1] + data[4 * pixel + 2];
let lightest = 0;
for (let pixel = 0; pixel < data.length / 4; pixel += 1) if (light(pixel) > light(lightest)) lightest = pixel;
const cells = (pixels) => Math.floor((7 * pixels) / width);
return [cells(Math.floor(lightest / width)), cells(lightest % width)];
"""
BOX = """
const [map, image] = ["map", "large-image"].map((id) => document.getElementById(id).getBoundingClientRect());
const middle = ({ left, top, width, height }) => [left + width / 2, top + height / 2];
const [[x, y], [left, top]] = [middle(map), middle(image)];
return [x - left, y - top, map.width, map.height, image.width, image.height].map(Math.round);
"""


def test_m_lays_the_map_of_a_label_over_what_the_model_sees(page: Open, tmp_path: Path, thumbnail: bytes) -> None:
    shutil.copy(CAT, tmp_path / "cat.jpg")  # 451 × 300
    other = [[0.0 if (row, column) == (6, 0) else -0.1 for column in range(7)] for row in range(7)]
    explanations = [explanation(TABBY, TERMS), explanation(EGYPTIAN, other)]
    shown = page(
        record("cat.jpg", TABBY, EGYPTIAN, explanations=explanations), record("b.jpg", TABBY), thumbnail=thumbnail
    )
    shown.click(".tile")
    shown.wait("document.getElementById('large-image').naturalWidth === 451")
    assert not shown.element("#map").is_displayed()
    assert shown.texts("#where-from") == ["Where from"]
    shown.type("m")
    shown.wait("!document.getElementById('map').hidden")
    assert shown.element("#where-from").get_attribute("aria-pressed") == "true"
    assert shown.texts("#added") == [
        "Bright places speak for the label: each adds −0.05 to 0.15 "
        "to the logit 24.22\u00a0=\u00a026.47\u00a0−\u00a02.25"
    ]
    assert shown.run(LIGHTEST) == [2, 5]
    assert shown.element("#map").get_attribute("aria-label") == (
        "Where tabby, tabby cat comes from: most from row 3, column 6 of 7"
    )
    across, down, width, height, image_width, image_height = shown.run(BOX)
    assert (across, down) == (0, 0)
    assert width == height == round(min(image_width / 451, image_height / 300) * 300 * 224 / 256)
    shown.click("#large-labels li:last-child button")
    assert shown.run(LIGHTEST) == [6, 0]
    pressed = [
        each.get_attribute("aria-pressed")
        for each in shown.driver.find_elements("css selector", "#where-from, #large-labels button")
    ]
    assert pressed == ["true", "false", "true"]
    shown.type(Keys.ARROW_RIGHT)  # a photo that has none
    shown.wait("document.getElementById('large-image').naturalWidth === 226")
    assert not shown.element("#where").is_displayed()
    assert not shown.element("#map").is_displayed()
    shown.type("m", Keys.ARROW_LEFT)
    shown.wait("!document.getElementById('map').hidden")
    assert shown.run(LIGHTEST) == [2, 5]
    shown.type("m")
    assert not shown.element("#map").is_displayed()


@pytest.mark.parametrize("size", [(300, 1200), (4000, 200)])
def test_a_map_lies_over_the_thumbnail_of_a_photo_that_is_gone(
    page: Open, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size, "grey").save(tmp_path / "grey.png")
    made = prepare(Source(str(tmp_path / "grey.png")), thumbnails=True).thumbnail
    shown = page(record("gone.jpg", TABBY, explanations=[explanation(TABBY, TERMS)]), thumbnail=made, size=(390, 844))
    shown.click(".tile")
    shown.click("#where-from")
    shown.wait("!document.getElementById('map').hidden")
    across, down, width, height, image_width, image_height = shown.run(BOX)
    assert (across, down) == (0, 0)
    exact = min(image_width / size[0], image_height / size[1]) * min(size) * 224 / 256
    assert width == height
    assert abs(width - exact) < 2 + 0.1 * exact  # a thumbnail's sides are whole pixels


def test_a_photo_that_is_turned_by_its_exif_data_has_its_map_where_it_stands(page: Open, tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 200), "grey")
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    shown = page(record("turned.jpg", TABBY, explanations=[explanation(TABBY, TERMS)]))
    shown.click(".tile")
    shown.wait("document.getElementById('large-image').naturalHeight === 600")
    shown.type("m")
    shown.wait("!document.getElementById('map').hidden")
    across, down, width, height, _, image_height = shown.run(BOX)
    assert (across, down) == (0, 0)
    assert width == height == round(image_height / 600 * 200 * 224 / 256)


def test_there_are_no_maps_where_nothing_is_explained_or_no_photo_can_be_shown(page: Open) -> None:
    explained = record("gone.jpg", TABBY, explanations=[explanation(TABBY, TERMS)])
    shown = page(record("a.jpg", TABBY), explained)
    for tile in (0, 1):
        shown.run("document.querySelectorAll('.tile')[arguments[0]].click()", tile)
        shown.type("m")
        assert not shown.element("#where").is_displayed()
        assert not shown.element("#map").is_displayed()
        shown.click("#close")


# ---- pages that are not complete


def test_a_page_of_a_run_that_was_interrupted_says_so(page: Open) -> None:
    shown = page(*some(), complete=False)
    assert shown.texts("#notice") == ["The run was ended before its time: this is what was done."]
    assert len(shown.labels()) == 6


def test_a_page_of_a_run_that_was_killed_shows_what_was_written(page: Open, tmp_path: Path) -> None:
    shown = page(*some())
    whole = (tmp_path / "page.html").read_text()
    (tmp_path / "torn.html").write_text(whole[: whole.index('"path": "other/d.jpg"') + 9])
    shown.driver.get((tmp_path / "torn.html").as_uri())
    assert shown.labels() == ["Egyptian cat", "tabby", "Great Dane"]
    assert shown.texts("#notice")[0].startswith("The run that writes this page has not ended, or was killed")


# ---- any size, any light


def test_a_phone_shows_three_photos_a_row_and_nothing_is_wider_than_it(page: Open, thumbnail: bytes) -> None:
    long = [{**DANE, "label": "wide" * 75}, {**TABBY, "label": "a " * 150}]
    records = [record("very/long/" * 30 + "name.jpg", *long), *(record(f"{number}.jpg", DANE) for number in range(9))]
    shown = page(*records, thumbnail=thumbnail, size=(390, 844))
    assert shown.run("return document.querySelector('.row').children.length") == 3
    assert not shown.element("#choices").is_displayed()
    width = "return [document.documentElement.scrollWidth, document.getElementById('large').scrollWidth]"
    assert shown.run(width)[0] == 390
    shown.click(".tile")
    assert shown.run(width) == [390, 390]
    shown.click("#close")
    shown.click("#side > summary")
    assert shown.run(width)[0] == 390


def test_it_is_light_or_dark_as_the_browser_is(page: Open) -> None:
    shown = page(*some())
    colours = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colours.append(shown.run("return getComputedStyle(document.body).backgroundColor"))
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colours == ["rgb(251, 251, 250)", "rgb(22, 22, 24)"]


@pytest.mark.slow
def test_twenty_thousand_photos_open_at_once_and_scroll(page: Open, thumbnail: bytes) -> None:
    records = (
        record(f"photos/{number:05}.jpg", *([TABBY, EGYPTIAN, DANE, SHUTTLE][number % 4 :] or [TABBY]))
        for number in range(20_000)
    )
    shown = page(*records, thumbnail=thumbnail)
    assert shown.run("return performance.getEntriesByType('navigation')[0].loadEventEnd") < 2000
    assert shown.shown() == "20,000 photos"
    frames = shown.driver.execute_async_script(
        "const frames = []; let last = performance.now(); const step = (now) => { frames.push(now - last); last = now;"
        "scrollBy(0, 100); if (frames.length < 200) requestAnimationFrame(step); else arguments[0](frames) };"
        "requestAnimationFrame(step)"
    )
    shown.wait("[...document.querySelectorAll('.tile img')].every((image) => image.naturalWidth === 226)")
    assert sorted(frames)[len(frames) // 2] < 34
    assert max(frames) < 500
    assert len(shown.labels()) < 100  # those in view are in the document
    shown.run("scrollTo(0, document.documentElement.scrollHeight)")
    shown.a_frame()
    assert "photos/19999.jpg" in shown.run("return [...document.querySelectorAll('.tile')].at(-1).ariaLabel")
    took = shown.run(
        "const start = performance.now(); location.hash = 'words=dog';"
        "dispatchEvent(new HashChangeEvent('hashchange')); return performance.now() - start"
    )
    assert shown.shown() == "5,000 of 20,000 photos"
    assert took < 1000
