// The server's clock, learned from its answers: a window "to now" by a wrong clock of the device would end too early and
// hide the newest scans, or begin too late.

let ahead_ms = 0;

export const now = () => new Date(Date.now() + ahead_ms);

/** Learn from an answer; gives by how many milliseconds that moved the clock. `sent`, `got`: the device's own times. */
export function learn(answered_at, sent, got) {
  const measured = Date.parse(answered_at) - (sent + got) / 2;
  const moved = measured - ahead_ms;
  ahead_ms = measured;
  return Math.abs(moved);
}
