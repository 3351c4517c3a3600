// What a verdict sounds and feels like: each differs in pitch, rhythm and voice, so that it is known without looking.

const SOUNDS = {
  go: {voice: "sine", notes: [[880, 0, 0.11], [1319, 0.12, 0.2]], buzz: [90]},
  stop: {voice: "square", notes: [[196, 0, 0.28], [156, 0.34, 0.42]], buzz: [300, 120, 300]},
  wait: {voice: "triangle", notes: [[523, 0, 0.09], [523, 0.16, 0.09], [523, 0.32, 0.09]], buzz: [70, 70, 70, 70, 70]},
};
const LOUDNESS = {sine: 0.5, triangle: 0.6, square: 0.22}; // about equally loud to the ear

let context = null;

/** Browsers give no sound before the first gesture: the voice is made with it. */
export function prepareSignals() {
  const wake = () => {
    context ??= window.AudioContext ? new AudioContext() : null;
    if (context?.state === "suspended") context.resume();
  };
  for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, wake, {capture: true, passive: true});
}

/** go, stop or wait: to the ear and to the hand. */
export function signal(kind) {
  const {voice, notes, buzz} = SOUNDS[kind];
  if (context) {
    for (const [pitch, from, length] of notes) tone(voice, pitch, context.currentTime + from, length);
  }
  // Before a gesture the browser refuses, and complains.
  if (navigator.vibrate && navigator.userActivation?.hasBeenActive) navigator.vibrate(buzz);
}

function tone(voice, pitch, at, length) {
  const source = context.createOscillator();
  const volume = context.createGain();
  source.type = voice;
  source.frequency.value = pitch;
  volume.gain.setValueAtTime(0, at);
  volume.gain.linearRampToValueAtTime(LOUDNESS[voice], at + 0.01); // without ramps it clicks
  volume.gain.setValueAtTime(LOUDNESS[voice], at + length - 0.02);
  volume.gain.linearRampToValueAtTime(0, at + length);
  source.connect(volume).connect(context.destination);
  source.start(at);
  source.stop(at + length);
}
