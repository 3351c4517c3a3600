"""A verdict reaches whoever works at the gate: by colour, shape, word, ear and hand, in their language."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect

from server.domain.errors import ErrorCode
from server.domain.redemption import Verdict
from tests.road import Road
from tests.screens.at_the_gate import NO_NETWORK, Gate, Line, on_duty, tokens
from tests.screens.conftest import OpenWindow

SENSES = """(() => {
  window.heard = [];
  window.felt = [];
  const make = AudioContext.prototype.createOscillator;
  AudioContext.prototype.createOscillator = function () {
    const source = make.call(this), start = source.start.bind(source);
    source.start = (at) => { window.heard.push([source.type, source.frequency.value]); start(at); };
    return source;
  };
  Object.defineProperty(navigator, "vibrate", {value: (pattern) => { window.felt.push(pattern); return true; }});
})()"""
# Every text on a verdict against what is behind it, whatever its size: sunlight makes no exception for large ones.
RATIOS = """() => {
  const parts = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const face = document.querySelector(".verdict"), ground = parts(getComputedStyle(face).backgroundColor);
  const all = [...face.querySelectorAll("*")];
  const texts = all.filter((each) => [...each.childNodes].some((node) => node.nodeType === 3));
  return {
    ground: light(ground),
    least: Math.min(...texts.map((each) => ratio(parts(getComputedStyle(each).color), ground))),
    shape: ratio(parts(getComputedStyle(face.querySelector(".shape")).fill), ground),
    outline: face.querySelector(".shape").innerHTML,
    inside: all.every((each) => getComputedStyle(each).backgroundColor === "rgba(0, 0, 0, 0)"),
  };
}"""


async def sensed(gate: Gate) -> dict[str, Any]:
    """The verdict on the screen, and what was heard and felt of it."""
    told: dict[str, Any] = await gate.page.evaluate(RATIOS)
    told["word"] = await gate.word.inner_text()
    told["heard"] = await gate.page.evaluate("() => JSON.stringify(window.heard.splice(0))")
    told["felt"] = await gate.page.evaluate("() => JSON.stringify(window.felt.splice(0))")
    return told


async def test_three_verdicts_differ_in_colour_shape_word_sound_and_touch(
    road: Road, open_window: OpenWindow
) -> None:
    first, second = await tokens(road, 2)
    window = await open_window(None)
    window.expected = [*NO_NETWORK]
    await window.context.add_init_script(SENSES)
    await window.stand_still()
    await window.go("/gate")
    gate = await on_duty(open_window, road, window=window)
    line = Line()
    await gate.page.route("**/venue/scan", line)

    faces = []
    await gate.present(first)
    await expect(gate.word).to_have_text("LET IN")
    faces.append(await sensed(gate))
    await gate.present(first)
    await expect(gate.word).to_have_text("REFUSED")
    faces.append(await sensed(gate))
    line.cut = True
    await gate.present(second)
    await gate.page.clock.fast_forward(3_000)
    await expect(gate.word).to_have_text("NOT DECIDED")
    faces.append(await sensed(gate))

    for what in ("ground", "outline", "word", "heard", "felt"):
        assert len({face[what] for face in faces}) == 3, what
    assert all(face["heard"] != "[]" and face["felt"] != "[]" for face in faces)
    assert all(face["inside"] and face["least"] >= 7 and face["shape"] >= 7 for face in faces), faces
    # Told apart without any colour: "not decided" is bright, both others are dark.
    go, stop, wait = (face["ground"] for face in faces)
    assert min(wait / go, wait / stop) > 4


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_every_verdict_and_every_refusal_of_a_scan_has_words(
    road: Road, open_window: OpenWindow, lang: str
) -> None:
    window = await open_window("/gate", lang=lang)
    verdicts = [verdict.name for verdict in Verdict if verdict is not Verdict.SUCCESS]
    refusals = await refusals_of_a_scan(road)
    assert {"GATE_CLOSED", "TOKEN_EXPIRED", "SCAN_ID_CONFLICT", "VALIDATION_FAILED"} <= refusals
    known: dict[str, Any] = await window.page.evaluate(
        """async (codes) => {
          await import("/static/gate/reasons.js");
          const words = await import("/static/words.js");
          const text = (code) => (words.knows(code) ? words.t(code, {function: "?"}) : null);
          return Object.fromEntries(codes.map((code) => [code, text(code)]));
        }""",
        sorted({*verdicts, *[f"do_{name}" for name in verdicts], *refusals}),
    )

    assert [code for code, text in known.items() if not text] == []
    has_chinese = {code: any("\u4e00" <= sign <= "\u9fff" for sign in text) for code, text in known.items()}
    assert set(has_chinese.values()) == {lang == "zh"}, has_chinese


async def refusals_of_a_scan(road: Road) -> set[str]:
    """The codes that the API's document names for POST /venue/scan."""
    document = (await road.call("GET", "/openapi/openapi.json")).json
    responses = document["paths"]["/venue/scan"]["post"]["responses"]
    text = str({status: told for status, told in responses.items() if status != "200"})
    return {code.name for code in ErrorCode if code.name in text}


async def test_a_refusal_of_tomorrow_is_shown_by_its_code(road: Road, open_window: OpenWindow) -> None:
    gate = await on_duty(open_window, road)

    async def newer(route: Any) -> None:
        asked = route.request.post_data_json
        await route.fulfill(
            status=200,
            json={
                "result": "reject",
                "reason": "MOON_IS_FULL",
                "scan_id": asked["scan_id"],
                "entitlements": [],
            },
        )

    await gate.page.route("**/venue/scan", newer)

    await gate.present("ANYTHING-AT-ALL")

    await expect(gate.word).to_have_text("REFUSED")
    await expect(gate.page.locator(".verdict")).to_contain_text("MOON_IS_FULL")
