"""The chart modules by themselves, in Chromium: round ticks, columns and bars of whatever comes, and reading them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.screens.conftest import windows

SERIES = "[{look: 'in', name: 'Let in'}, {look: 'out', name: 'Refused'}]"
PLACE = """
  const place = document.querySelector("#screen");
  place.style.width = `${width}px`;
  place.replaceChildren(chart.element);
"""
# A chart is drawn once more when it learns its width: what is measured after that stays.
SETTLED = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
COLUMNS = (
    "async ([width, values]) => { const series = "
    + SERIES
    + """;
  const {Columns} = await import("/static/report/columns.js");
  const chart = new Columns({title: "Over time", series});
"""
    + PLACE
    + """
  const bands = values.map((pair, index) =>
    ({id: `b${index}`, told: `hour ${index}`, tick: `${index}:00`, rank: index, values: pair}));
  chart.show({bands, steps: [1, 2, 3, 6, 12, 24], description: "all of it"});
  Object.assign(window, {chart, bands});
"""
    + SETTLED
    + "}"
)
BARS = (
    "async ([width, rows]) => { const series = "
    + SERIES
    + """;
  const {Bars} = await import("/static/report/bars.js");
  const chart = new Bars({title: "By gate", series});
"""
    + PLACE
    + """
  chart.show({rows: rows.map(([name, told, values], index) => ({id: `r${index}`, name, told, values}))});
"""
    + SETTLED
    + "}"
)


@pytest.fixture(scope="module")
async def sheet(browser: Browser, shelf: str) -> AsyncIterator[Page]:
    """A page of this origin with the report's style, for all tests of this file."""
    async with windows(browser, shelf) as open_window:
        page: Page = (await open_window("/report", phone=False)).page
        await expect(page.locator("h1")).to_be_visible()
        yield page


@pytest.fixture
async def page(sheet: Page) -> Page:
    """The same, with nothing on it."""
    await sheet.mouse.move(0, 0)
    await sheet.locator("#screen").evaluate("(place) => { place.replaceChildren(); place.style.width = ''; }")
    return sheet


async def heights(page: Page) -> list[list[float]]:
    """The heights of the shapes of each column, from below."""
    told: list[list[float]] = await page.locator("svg.columns").evaluate(
        "(svg) => [...svg.querySelectorAll('.band')].map((band) => [...band.querySelectorAll('rect:not(.lane)')]"
        ".map((shape) => Number(shape.getAttribute('height'))))"
    )
    return told


async def numbers(page: Page) -> list[str]:
    """The numbers of the axis, from below."""
    return await page.locator("svg.columns .grid text").all_text_contents()


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, [0, 1]),
        (-3, [0, 1]),
        (None, [0, 1]),
        (1, [0, 1]),
        (2, [0, 1, 2]),
        (4, [0, 1, 2, 3, 4]),
        (5, [0, 2, 4, 6]),
        (7, [0, 2, 4, 6, 8]),
        (10, [0, 5, 10]),
        (99, [0, 50, 100]),
        (101, [0, 50, 100, 150]),
        (1_000, [0, 500, 1_000]),
        (123_456, [0, 50_000, 100_000, 150_000]),
        (4 * 10**15, [n * 10**15 for n in range(5)]),
    ],
)
async def test_ticks_are_round_whole_and_reach_the_most(page: Page, most: Any, expected: list[int]) -> None:
    told = await page.evaluate(
        "async (most) => (await import('/static/report/chart.js')).ticks(most ?? NaN)", most
    )
    assert told == expected


async def test_ticks_are_few_and_reach_every_number(page: Page) -> None:
    worst = await page.evaluate(
        """async () => {
          const {ticks} = await import("/static/report/chart.js");
          const faults = [];
          for (let most = 1; most < 1e12; most = Math.ceil(most * 1.07)) {
            const told = ticks(most);
            const step = told[1];
            const round = [1, 2, 5].includes(Number(String(step)[0])) && /^\\d0*$/.test(String(step));
            if (told.at(-1) < most || told.at(-2) >= most || told.length > 6 || !round) faults.push([most, told]);
          }
          return faults;
        }"""
    )
    assert worst == []


async def test_columns_stand_in_proportion_one_series_on_the_other(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[8, 0], [4, 4], [0, 2], [0, 0]]])
    drawn = await heights(page)
    assert [len(each) for each in drawn] == [1, 2, 1, 0]
    whole = drawn[0][0]
    assert drawn[1] == [pytest.approx(whole / 2)] * 2
    assert drawn[2] == [pytest.approx(whole / 4)]
    lower, upper = (
        await page.locator(".band")
        .nth(1)
        .locator("rect:not(.lane)")
        .evaluate_all(
            "(shapes) => shapes.map((shape) => shape.getBBox()).map((box) => [box.y, box.y + box.height])"
        )
    )
    assert upper[1] == pytest.approx(lower[0], abs=0.01)
    assert await numbers(page) == ["0", "2", "4", "6", "8"]
    assert await page.locator("svg.columns .value").all_text_contents() == ["8", "8", "2"]


@pytest.mark.parametrize(
    ("values", "axis"), [([[0, 0]] * 3, ["0", "1"]), ([], ["0", "1"]), ([[3, 0]], ["0", "1", "2", "3"])]
)
async def test_nothing_zero_and_a_single_column_are_drawn_with_an_axis(
    page: Page, values: list[list[int]], axis: list[str]
) -> None:
    await page.evaluate(COLUMNS, [800, values])
    assert await numbers(page) == axis
    assert await page.locator(".band").count() == len(values)
    shapes = await page.locator("svg.columns").evaluate("(svg) => svg.outerHTML")
    assert "NaN" not in shapes and "Infinity" not in shapes
    for band in await page.locator(".band rect:not(.lane)").all():
        assert float(str(await band.get_attribute("width"))) <= 56  # a lonely column is no wall


async def test_huge_numbers_keep_within_the_chart_and_small_ones_are_still_seen(page: Page) -> None:
    await page.evaluate(COLUMNS, [360, [[9_007_199_254_740_991, 1], [1, 0], [123_456_789, 2]]])
    drawn = await heights(page)
    assert all(1.5 <= height <= 230 for each in drawn for height in each)
    boxes = await page.locator("svg.columns text").evaluate_all(
        "(texts) => texts.map((text) => { const box = text.getBBox(); return [box.x, box.x + box.width]; })"
    )
    assert all(left >= 0 and right <= 366 for left, right in boxes)
    label = await page.locator(".band").first.get_attribute("aria-label")
    assert label == "hour 0: Let in 9,007,199,254,740,991 Refused 1"


async def test_labels_of_the_axis_never_touch_however_many_columns_there_are(page: Page) -> None:
    for width, count in ((320, 24), (320, 61), (1_100, 72), (320, 366)):
        await page.evaluate(COLUMNS, [width, [[1, 0]] * count])
        boxes = await page.locator("svg.columns .axis text").evaluate_all(
            "(texts) => texts.map((text) => { const box = text.getBBox(); return [box.x, box.x + box.width]; })"
        )
        assert len(boxes) >= 2, (width, count)
        assert all(a[1] + 8 <= b[0] for a, b in pairwise(boxes)), (width, count)
        assert boxes[0][0] >= 0 and boxes[-1][1] <= width


async def test_one_tab_enters_the_chart_and_arrows_walk_through_it(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[n, 1] for n in range(5)]])
    tip = page.locator(".tip")
    await page.locator("#screen").evaluate("(place) => { place.tabIndex = -1; place.focus(); }")
    await page.keyboard.press("Tab")
    focused = page.locator(".band:focus")
    await expect(focused).to_have_attribute("aria-label", "hour 4: Let in 4 Refused 1")
    await expect(tip).to_have_text("hour 4Refused1Let in4")
    for pressed, hour in (("ArrowLeft", 3), ("Home", 0), ("ArrowLeft", 0), ("End", 4), ("ArrowRight", 4)):
        await page.keyboard.press(pressed)
        await expect(focused).to_have_attribute("data-id", f"b{hour}")
        await expect(tip).to_contain_text(f"hour {hour}")
    assert await focused.evaluate("(band) => getComputedStyle(band).outlineStyle") == "solid"
    await page.keyboard.press("Escape")
    await expect(tip).to_be_hidden()
    await page.keyboard.press("Tab")
    await expect(focused).to_have_count(0)


async def test_new_numbers_leave_the_reader_where_they_were(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[n, 1] for n in range(5)]])
    await page.locator(".band").nth(2).focus()
    await page.evaluate(
        """() => {
          bands[2].values = [70, 0];
          bands.shift();
          chart.show({bands: [...bands], steps: [1], description: ""});
        }"""
    )
    await expect(page.locator(".band:focus")).to_have_attribute("aria-label", "hour 2: Let in 70 Refused 0")
    await expect(page.locator(".tip")).to_contain_text("70")


async def test_a_pointer_reads_the_column_under_it_and_a_click_holds_it(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[n, 0] for n in range(1, 6)]])
    tip, plot = page.locator(".tip"), page.locator(".plot")
    box = await plot.bounding_box()
    assert box is not None
    places = await page.locator(".band .lane").evaluate_all(
        "(lanes) => lanes.map((lane) => Number(lane.getAttribute('x')) + Number(lane.getAttribute('width')) / 2)"
    )
    for index, x in enumerate(places):
        await page.mouse.move(box["x"] + x, box["y"] + 40)  # far above a low column
        await expect(tip).to_contain_text(f"hour {index}")
        edges = await tip.bounding_box()
        assert edges is not None and box["x"] <= edges["x"] and edges["x"] + edges["width"] <= box["x"] + 800
    await page.mouse.move(0, 0)
    await expect(tip).to_be_hidden()
    await page.mouse.move(box["x"] + places[1], box["y"] + 40)
    await page.mouse.down()
    await page.mouse.up()
    await expect(page.locator(".band:focus")).to_have_attribute("data-id", "b1")


async def test_a_finger_holds_a_column_until_it_touches_something_else(browser: Browser, shelf: str) -> None:
    async with windows(browser, shelf) as open_window:
        page = (await open_window("/report")).page
        await expect(page.locator("h1")).to_be_visible()
        await held_by_a_finger(page)


async def held_by_a_finger(page: Page) -> None:
    """Touches a column, lifts the finger, and touches something else."""
    await page.evaluate(COLUMNS, [360, [[n, 0] for n in range(1, 6)]])
    box = await page.locator(".plot").bounding_box()
    assert box is not None
    await page.touchscreen.tap(box["x"] + 180, box["y"] + 60)
    tip = page.locator(".tip")
    await expect(tip).to_be_visible()
    await expect(tip).to_contain_text("hour 2")
    # A finger that is lifted leaves: that is not the end of reading, as it is for a mouse.
    await page.locator(".plot").evaluate(
        "(plot) => plot.dispatchEvent(new PointerEvent('pointerleave', {pointerType: 'touch'}))"
    )
    await expect(tip).to_be_visible()
    await page.touchscreen.tap(box["x"] + 180, box["y"] + 400)
    await expect(tip).to_be_hidden()


async def test_a_chart_follows_its_width(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[n, 0] for n in range(12)]])
    svg = page.locator("svg.columns")
    await expect(svg).to_have_attribute("width", "800")
    await page.evaluate("document.querySelector('#screen').style.width = '320px'")
    await expect(svg).to_have_attribute("width", "320")
    await expect(svg).to_have_attribute("height", "260")


async def test_bars_are_compared_with_the_longest_and_say_their_numbers(page: Page) -> None:
    rows = [
        ["gate-1", "6 in · 2 refused", [6, 2]],
        ["gate-2", "2 in · 0 refused", [2, 0]],
        ["gate-3", "none", [0, 0]],
    ]
    await page.evaluate(BARS, [400, rows])
    widths = await page.locator("svg.bars g[data-id]").evaluate_all(
        "(rows) => rows.map((row) => [...row.querySelectorAll('rect:not(.track)')]"
        ".map((bar) => Number(bar.getAttribute('width'))))"
    )
    assert [[round(width / 398, 2) for width in row] for row in widths] == [[0.75, 0.25], [0.25], []]
    svg = page.get_by_role("img", name="By gate")
    described = str(await svg.get_attribute("aria-describedby"))
    await expect(page.locator(f"#{described}")).to_have_text(
        "gate-1: 6 in · 2 refused; gate-2: 2 in · 0 refused; gate-3: none"
    )


async def test_a_long_name_is_cut_and_never_runs_into_the_numbers(page: Page) -> None:
    rows = [
        ["a gate with a very long name " * 4, "1,234,567 in · 89 refused", [5, 1]],
        ["海" * 60, "1", [1, 0]],
    ]
    await page.evaluate(BARS, [320, rows])
    boxes = await page.locator("svg.bars g[data-id]").evaluate_all(
        "(rows) => rows.map((row) => [...row.querySelectorAll('text')]"
        ".map((text) => text.getBBox()).map((box) => [box.x, box.x + box.width]))"
    )
    for (left, end), (start, right) in boxes:
        assert left >= 0 and end < start and right <= 321
    await expect(page.locator("svg.bars .name").first).to_contain_text("…")


async def test_series_differ_in_lightness_and_texture_not_only_in_colour(page: Page) -> None:
    await page.evaluate(COLUMNS, [800, [[4, 4]]])
    fills = await page.locator(".band rect:not(.lane)").evaluate_all(
        "(shapes) => shapes.map((shape) => shape.getAttribute('fill'))"
    )
    assert fills[0].startswith("#") and fills[1].startswith("url(#")
    assert await page.locator(f"{fills[1][4:-1]} path").count() == 1  # hatched
    ground = await page.locator(f"{fills[1][4:-1]} rect").get_attribute("fill")

    def light(colour: str) -> float:
        red, green, blue = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    assert (light(str(ground)) + 0.05) / (light(fills[0]) + 0.05) > 4.5
    swatches = await page.locator(".legend li").all_text_contents()
    assert swatches == ["Let in", "Refused"]
