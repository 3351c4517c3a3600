// What is shown over the whole screen, and for how long: one scan at a time, the latest.
//
// An answer is shown large only while its own visitor can be the one who stands there. A fresh scan takes the place of
// whatever was shown before, so that the green of one visitor is never looked at by the next.

import {h, fill, say} from "../dom.js";
import {t} from "../words.js";
import {sameCode} from "./queue.js";
import {signal} from "./signals.js";
import {checking, decided, fullFace, noRoom, spoken, strip, undecided} from "./verdict.js";

const CHECK_MS_MAX = 3_000; // past it, "checking" is called what it is: not decided
const LIVE_MS_MAX = 20_000; // past it, the visitor may be another one
const HELD_AGAIN_MS = 3_000; // who was asked to show the code again does so while its answer arrives
const SHOWN_MS = {go: 5_000, stop: 12_000, wait: 12_000}; // a refusal has to be read out to somebody

/** {cover, last, ...}: `cover` lies over the page, `last` stands in it. `covers()`, `lifts()`: the page is hidden, or free. */
export function openStage({covers, lifts}) {
  const cover = h("div", {class: "cover", hidden: true});
  const last = h("div", {class: "last"});
  let shown = null; // {scan, since, open, told, answer, at}: what the cover is about; told: "not decided"
  let timer = 0;

  function ready() {
    fill(last, h("div", {class: "strip idle"}, h("p", {class: "grow"}, h("strong", {}, t("ready")), " · ", t("ready_more"))));
  }

  function show(face, {sound = true, stays = false} = {}) {
    clearTimeout(timer);
    fill(cover, fullFace(face, close));
    cover.hidden = false;
    document.documentElement.classList.add("covered");
    covers();
    if (sound) signal(face.kind);
    say(spoken(face));
    fill(last, strip(face, Date.now()));
    if (!stays) timer = setTimeout(close, SHOWN_MS[face.kind]);
  }

  function close() {
    clearTimeout(timer);
    if (cover.hidden) return;
    cover.hidden = true;
    fill(cover);
    document.documentElement.classList.remove("covered");
    lifts();
  }

  function noAnswerYet() {
    clearTimeout(timer);
    if (shown?.open && !shown.told) {
      shown.told = true;
      show(undecided(), {stays: true});
    }
  }

  addEventListener("keydown", (event) => event.key === "Escape" && close());
  ready();
  return {
    cover,
    last,
    /** This scan goes out now. */
    check(scan) {
      shown = {scan, since: performance.now(), open: true, told: false};
      show(checking(), {sound: false, stays: true});
      timer = setTimeout(noAnswerYet, CHECK_MS_MAX);
    },
    /** The network fails: what is being checked is not decided. */
    noAnswerYet,
    /** Shows the answer, if it is about who stands there; gives whether it was. */
    answer(scan, answer) {
      if (shown?.scan.scan_id !== scan.scan_id) return false;
      shown.open = false;
      if (performance.now() - shown.since > LIVE_MS_MAX) {
        close();
        ready();
        return false;
      }
      Object.assign(shown, {answer, at: performance.now()});
      show(decided(scan, answer));
      return true;
    },
    /**
     * A code held up again because its answer did not come, which has come meanwhile: it is shown once more. As a new
     * scan it would be told "used already", and turn a visitor away who was just let in. Gives whether that was so.
     */
    repeat(wanted) {
      const fresh = shown?.answer && shown.told && performance.now() - shown.at < HELD_AGAIN_MS;
      if (!fresh || !sameCode(shown.scan, wanted)) return false;
      show(decided(shown.scan, shown.answer));
      return true;
    },
    noRoom(count) {
      shown = null;
      show(noRoom(count));
    },
    /** The scan that was shown last, while it has no answer. */
    open: () => (shown?.open ? shown.scan : null),
    close,
    leave() {
      shown = null;
      close();
      ready();
    },
  };
}
