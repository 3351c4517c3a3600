"""The camera at the gate: a code that is held up is one scan; where there is no camera, the other ways are offered."""

from __future__ import annotations

from playwright.async_api import expect

from tests.road import Road
from tests.screens.at_the_gate import Gate, on_duty, tokens
from tests.screens.conftest import OpenWindow

# A browser that reads codes: the camera's picture is a canvas, and what it "sees" is window.heldUp. Time is measured in
# looks, 120 ms each: a machine that stands still between two of them does not take the code away.
CAMERA = """(() => {
  window.heldUp = null;
  window.looks = 0;
  performance.now = () => window.looks * 120;
  window.light = null;
  window.BarcodeDetector = class {
    static async getSupportedFormats() { return ["qr_code"]; }
    constructor({formats}) { if (formats.join() !== "qr_code") throw new TypeError(formats); }
    async detect(picture) {
      if (!(picture instanceof HTMLVideoElement)) throw new TypeError("not a picture");
      window.looks += 1;
      return window.heldUp ? [{rawValue: window.heldUp}] : [];
    }
  };
  const blocked = () => { throw new DOMException("no", "NotAllowedError"); };
  Object.defineProperty(navigator, "mediaDevices", {value: {getUserMedia: async ({video}) => {
    if (window.cameraBlocked) blocked();
    const canvas = document.createElement("canvas");
    canvas.width = 640; canvas.height = 480;
    const paint = canvas.getContext("2d");
    let shade = 0;
    window.painting = setInterval(() => {
      paint.fillStyle = `hsl(205 30% ${20 + (shade++ % 20)}%)`;
      paint.fillRect(0, 0, 640, 480);
    }, 40);
    window.stream = canvas.captureStream(25);
    const [track] = window.stream.getVideoTracks();
    track.getCapabilities = () => ({torch: true});
    track.applyConstraints = async ({advanced: [{torch}]}) => { window.light = torch; };
    return window.stream;
  }}});
})()"""


async def with_camera(road: Road, open_window: OpenWindow) -> Gate:
    """A gate whose browser can read codes; its camera is off."""
    window = await open_window("/gate")
    await window.context.add_init_script(CAMERA)
    await window.page.reload()
    return await on_duty(open_window, road, window=window)


async def hold_up(gate: Gate, token: str | None) -> None:
    """Hold a code before the camera, or nothing."""
    await gate.page.evaluate("(token) => { window.heldUp = token; }", token)


async def test_a_code_before_the_camera_is_scanned_once_however_long_it_is_held(
    road: Road, open_window: OpenWindow
) -> None:
    [token] = await tokens(road, 1)
    gate = await with_camera(road, open_window)
    await gate.page.get_by_role("button", name="Start camera").click()
    await expect(gate.page.get_by_text("Hold the code inside the frame")).to_be_visible()
    await gate.window.picture("gate-camera-phone-en")

    await hold_up(gate, token)

    await expect(gate.word).to_have_text("LET IN")
    await gate.window.picture("gate-let-in-with-camera-phone-en")
    await expect(gate.word).to_be_hidden()  # it was looked at all the while, and was not refused
    assert await gate.tile("Refused") == 0
    await hold_up(gate, None)
    looks = await gate.page.evaluate("() => window.looks")
    await gate.page.wait_for_function("(before) => window.looks > before + 16", arg=looks)  # two seconds
    await hold_up(gate, token)  # put away and held up again: somebody else may do that
    await expect(gate.word).to_have_text("REFUSED")


async def test_the_light_and_the_camera_are_switched_off_again(road: Road, open_window: OpenWindow) -> None:
    gate = await with_camera(road, open_window)
    await gate.page.get_by_role("button", name="Start camera").click()
    light = gate.page.get_by_role("button", name="Light")

    await light.click()

    await expect(light).to_have_attribute("aria-pressed", "true")
    assert await gate.page.evaluate("() => window.light") is True
    await gate.page.get_by_role("button", name="Stop camera").click()
    await expect(gate.page.get_by_role("button", name="Start camera")).to_be_visible()
    assert await gate.page.evaluate("() => window.stream.getTracks().map((each) => each.readyState)") == [
        "ended"
    ]


async def test_a_camera_that_was_on_is_on_again_after_a_reload_and_off_after_the_shift(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await with_camera(road, open_window)
    await gate.page.get_by_role("button", name="Start camera").click()
    await expect(gate.page.locator("video")).to_be_visible()

    await gate.page.reload()

    await expect(gate.page.locator("video")).to_be_visible()
    stream = await gate.page.evaluate_handle("() => window.stream")
    await gate.page.get_by_role("button", name="End shift").click()
    await gate.page.locator("dialog").get_by_role("button", name="End shift").click()
    await expect(gate.page.locator("#password")).to_be_visible()
    assert await stream.evaluate("(it) => it.getTracks()[0].readyState") == "ended"


async def test_a_blocked_camera_says_what_to_do_and_may_be_tried_again(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await with_camera(road, open_window)
    await gate.page.evaluate("() => { window.cameraBlocked = true; }")

    await gate.page.get_by_role("button", name="Start camera").click()

    await expect(gate.page.get_by_text("The camera is blocked")).to_be_visible()
    await gate.window.picture("gate-camera-blocked-phone-en")
    await gate.page.evaluate("() => { window.cameraBlocked = false; }")
    await gate.page.get_by_role("button", name="Try again").click()
    await expect(gate.page.locator("video")).to_be_visible()


async def test_without_a_reading_camera_the_other_ways_are_offered(
    road: Road, open_window: OpenWindow
) -> None:
    gate = await on_duty(open_window, road)

    await expect(gate.page.get_by_text("This browser cannot scan by camera")).to_be_visible()
    await expect(gate.page.get_by_text("Just scan, at any time")).to_be_visible()
    await expect(gate.page.get_by_label("Type the code")).to_be_visible()
    await expect(gate.page.get_by_role("button", name="Start camera")).to_have_count(0)
