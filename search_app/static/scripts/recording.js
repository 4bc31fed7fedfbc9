// Records from the microphone and follows the level, so that a recording ends when the speaker does.
import { _ } from "./i18n.js";

const TICK = 50; // milliseconds between two looks at the level
const SPOKEN = 200; // milliseconds that must be loud before it counts as speech: a click is none
const PAUSE = 250; // of silence after speech: perhaps the end
const QUIET = 700; // of silence after speech: the end
const PATIENCE = 8000; // of silence from the beginning on: the end
const LOUD = -45; // decibels below full scale
const ABOVE_NOISE = 10; // decibels that speech is louder than the quietest moment
const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const NO_HTTPS = _("The microphone works over HTTPS or on this computer itself (localhost) only: open this page by such an address.");
const NO_RECORDER = _("This browser cannot record sound: use a current Firefox, Chrome, Edge or Safari.");
const REFUSALS = {
  NotAllowedError: _("The microphone is blocked for this page: allow it in the browser, beside the address, and try again."),
  NotFoundError: _("No microphone was found: connect one and try again."),
  NotReadableError: _("The microphone cannot be used now: another program may hold it, or the system's settings forbid it."),
};

// Its message is a sentence for people.
export class Refusal extends Error {}

export async function openMicrophone() {
  if (!isSecureContext) throw new Refusal(NO_HTTPS);
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) throw new Refusal(NO_RECORDER);
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    throw new Refusal(REFUSALS[error.name] ?? _("The microphone cannot be used ({reason}).", { reason: error.message || error.name }));
  }
}

// Calls onLevel(0 to 1, seconds) all the time, onPause() when the speaker may have ended, onEnd() when it is over.
export class Recording {
  loud = 0; // how often speech was heard: unchanged means nothing was said in between
  #noise = 0; #heard = 0; #quiet = 0; #chunks = []; #waiting = [];

  constructor(stream, { longest, onLevel, onPause, onEnd }) {
    Object.assign(this, { stream, longest, onLevel, onPause, onEnd });
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    this.recorder = new MediaRecorder(stream, mimeType ? { mimeType, audioBitsPerSecond: 64_000 } : {});
    this.recorder.ondataavailable = (event) => this.#take(event.data);
    this.recorder.start();
    this.started = performance.now();
    this.#listen();
    stream.getAudioTracks()[0].onended = () => this.onEnd(); // unplugged, or taken away
  }

  get spoken() { return this.#heard >= SPOKEN; }

  // Everything until now, while the recording goes on.
  soFar() {
    return new Promise((done) => { this.#waiting.push(done); this.recorder.requestData(); });
  }

  // Ends the recording and gives it.
  async stop() {
    this.#close();
    if (this.recorder.state === "inactive") return this.#blob();
    return new Promise((done) => {
      this.recorder.onstop = () => { done(this.#blob()); this.#release(); };
      this.recorder.stop();
    });
  }

  discard() {
    this.#close();
    if (this.recorder.state !== "inactive") this.recorder.stop();
    this.#release();
  }

  #take(chunk) {
    this.#chunks.push(chunk);
    for (const done of this.#waiting.splice(0)) done(this.#blob());
  }

  #blob() { return new Blob(this.#chunks, { type: this.recorder.mimeType }); }

  #listen() {
    const level = this.#ear();
    this.timer = setInterval(() => {
      const lasted = performance.now() - this.started;
      if (lasted >= this.longest * 1000) this.onEnd();
      else if (level) this.#follow(level(), lasted);
      else this.onLevel(0, lasted / 1000);
    }, TICK);
  }

  // A function that gives the level; none where the browser cannot listen in: such a recording is ended by hand.
  #ear() {
    try {
      this.context = new AudioContext();
      this.context.resume();
      const analyser = this.context.createAnalyser();
      const samples = new Float32Array(analyser.fftSize);
      this.context.createMediaStreamSource(this.stream).connect(analyser);
      return () => { analyser.getFloatTimeDomainData(samples); return decibels(samples); };
    } catch { return null; }
  }

  #follow(level, lasted) {
    const before = this.#quiet;
    this.#noise = Math.min(this.#noise, Math.max(level, -80)) + 0.5 * TICK / 1000; // a noise that grows is followed
    if (level > Math.max(LOUD, this.#noise + ABOVE_NOISE)) { this.#heard += TICK; this.#quiet = 0; this.loud += 1; }
    else this.#quiet += TICK;
    this.onLevel(Math.max(0, 1 + level / 60), lasted / 1000);
    const limit = this.spoken ? QUIET : PATIENCE;
    if (this.#quiet >= limit) this.onEnd();
    else if (this.spoken && before < PAUSE && this.#quiet >= PAUSE) this.onPause();
  }

  #close() { clearInterval(this.timer); this.timer = null; }

  #release() {
    for (const track of this.stream.getTracks()) { track.onended = null; track.stop(); }
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}

function decibels(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return power ? 10 * Math.log10(power) : -96;
}
