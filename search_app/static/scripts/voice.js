// Speaking a query: hold the button while you speak, or press it once to begin and once to end.
// Needs: button.mic
import { _, language } from "./i18n.js";
import { Meter } from "./meter.js";
import { openMicrophone, Recording, Refusal } from "./recording.js";

const HELD = 400; // milliseconds: a shorter press switches on and off
const MOMENT = 300; // milliseconds that the transcript is to be seen before the search begins
const TRIES = 5;
const SLOW = 700; // milliseconds: a model that takes longer is not asked before the end
const NOTHING = _("Nothing was heard. Speak close to the microphone, and try again.");
const UNCLEAR = _("A voice was heard but not understood. Say it again, closer to the microphone.");
const AWAY = _("The server does not answer; look whether it still runs.");

const button = document.querySelector("button.mic");
const panel = document.querySelector(".voice");
const meter = new Meter(panel.querySelector("canvas"), panel.querySelector(".clock"));
const line = document.getElementById("said");
const field = document.getElementById("q");
let spoken = null; // the query that is being spoken

// Without storage, as in some private windows, nothing is kept.
function keepInTab(name, value) { try { sessionStorage.setItem(name, JSON.stringify(value)); } catch { /* nothing */ } }
function recall(name) { try { return JSON.parse(sessionStorage.getItem(name)); } catch { return null; } }

function say(sentence, tone = "") {
  line.dataset.tone = tone;
  if (line.textContent !== sentence) line.textContent = sentence;
}

function quoted(heard) {
  if (!heard.language) return _("Heard: “{text}”.", { text: heard.text }); // a model of one language tells none
  const spokenLanguage = new Intl.DisplayNames([language], { type: "language" }).of(heard.language);
  return _("Heard in {language}: “{text}”.", { language: spokenLanguage, text: heard.text });
}

function look(state) {
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(state === "opening" || state === "listening"));
  panel.hidden = state !== "listening";
}

function close(stream) { for (const track of stream?.getTracks() ?? []) track.stop(); }

async function begin() {
  const mine = spoken = { before: field.value, abort: new AbortController() };
  look("opening");
  say("");
  let stream = null;
  try {
    stream = await openMicrophone();
    if (spoken !== mine) { close(stream); return; }
    const longest = Number(button.dataset.seconds);
    meter.clear();
    const onLevel = (level, seconds) => meter.show(level, seconds);
    mine.recording = new Recording(stream, { longest, onLevel, onPause: () => guess(mine), onEnd: () => finish(mine) });
    mine.listening = true;
    look("listening");
    say(_("Listening. Speak now."));
  } catch (error) {
    close(stream);
    if (spoken === mine) fail(error);
  }
}

// The speaker may have ended: what was said so far is written down already while the recording goes on.
async function guess(mine) {
  if (mine.guessing || spoken !== mine || recall("voice:took") > SLOW) return;
  mine.guessing = true;
  const { loud } = mine.recording;
  mine.guess = { loud, heard: mine.recording.soFar().then((blob) => transcribe(blob, mine.abort.signal)).catch(() => null) };
  const heard = await mine.guess.heard;
  mine.guessing = false;
  if (spoken === mine && mine.listening && heard?.text && loud === mine.recording.loud) put(mine, heard);
}

async function finish(mine) {
  if (spoken !== mine || !mine.listening) return;
  mine.listening = false;
  look("hearing");
  try {
    const heard = await understood(mine, mine.recording.stop());
    if (spoken !== mine) return;
    if (!heard.text) throw new Refusal(heard.voice_found ? UNCLEAR : NOTHING);
    put(mine, heard);
    look("shown");
    say(`${quoted(heard)} ${_("Searching…")}`);
    mine.timer = setTimeout(() => search(mine, heard), Math.max(0, mine.shown + MOMENT - performance.now()));
  } catch (error) {
    if (spoken === mine) fail(error);
  }
}

// whole: a promise of the recording, which is not waited for when all of it is written down already
async function understood(mine, whole) {
  const early = mine.guess?.loud === mine.recording.loud ? await mine.guess.heard : null;
  if (early?.text) return early;
  say(_("Writing down what you said…"));
  return transcribe(await whole, mine.abort.signal);
}

async function transcribe(blob, signal) {
  for (let tries = 1; ; tries += 1) {
    const body = new FormData();
    body.append("audio", blob, "query");
    const response = await fetch(button.dataset.url, { method: "POST", body, signal }).catch(() => { throw new Refusal(AWAY); });
    if (response.ok) {
      const heard = await response.json();
      keepInTab("voice:took", heard.took_ms);
      return heard;
    }
    if (!response.headers.has("Retry-After") || tries === TRIES) {
      const problem = await response.json().catch(() => ({}));
      throw new Refusal(problem.detail ?? AWAY);
    }
    await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After"))));
  }
}

function put(mine, heard) {
  if (field.value !== heard.text || !mine.shown) mine.shown = performance.now();
  field.value = heard.text;
  field.lang = heard.language ?? "";
}

function search(mine, heard) {
  if (spoken !== mine) return;
  keepInTab("voice:heard", heard);
  field.form.requestSubmit();
}

function fail(error) {
  end();
  say(error instanceof Refusal ? error.message : _("Speaking does not work here ({reason}).", { reason: error.message }), "trouble");
}

function end() {
  if (!spoken) return;
  const { recording, listening, timer, abort } = spoken;
  clearTimeout(timer);
  if (listening) recording.discard();
  abort.abort();
  spoken = null;
  look("idle");
}

function cancel() {
  if (!spoken) return;
  if (spoken.shown) field.value = spoken.before;
  end();
  say("");
}

// Typing wins over speaking.
function typed() {
  field.removeAttribute("lang");
  if (button.dataset.state === "shown") keep();
  else if (spoken) { end(); say(""); }
}

// Whoever touches the transcript wants to change it first.
function keep() {
  if (!spoken || button.dataset.state !== "shown") return;
  end();
  say(_("Change the words, then press Enter to search."));
}

let pressed = null; // when the button went down and began a query

function press() {
  pressed = null;
  if (button.dataset.state === "listening") finish(spoken);
  else if (button.dataset.state === "opening") cancel();
  else if (button.dataset.state !== "hearing") { end(); pressed = performance.now(); begin(); }
}

function release() {
  const held = pressed !== null && performance.now() - pressed >= HELD;
  pressed = null;
  if (held && button.dataset.state === "listening") finish(spoken);
}

const isPress = (event) => event.key === " " || event.key === "Enter";
button.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  button.setPointerCapture(event.pointerId);
  press();
});
button.addEventListener("pointerup", release);
button.addEventListener("pointercancel", release);
button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press on a touch screen
button.addEventListener("keydown", (event) => {
  if (!isPress(event)) return;
  event.preventDefault();
  if (!event.repeat) press();
});
button.addEventListener("keyup", (event) => { if (isPress(event)) { event.preventDefault(); release(); } });
button.addEventListener("click", (event) => { if (event.detail === 0) press(); }); // speech control, screen readers
button.addEventListener("blur", () => { pressed = null; });

panel.querySelector("button").addEventListener("click", () => { cancel(); button.focus(); });
field.addEventListener("input", typed);
field.addEventListener("pointerdown", keep);
field.addEventListener("keydown", (event) => { if (!["Enter", "Tab", "Escape"].includes(event.key)) keep(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !spoken) return;
  event.preventDefault(); // a browser would empty the field
  if (button.dataset.state === "shown") keep();
  else cancel();
});
addEventListener("pagehide", end);

function remember() {
  const heard = recall("voice:heard");
  keepInTab("voice:heard", null);
  if (heard?.text !== field.value) return;
  field.lang = heard.language ?? "";
  say(`${quoted(heard)} ${_("Not what you said? Change the words, or speak again.")}`);
}

button.hidden = false;
look("idle");
remember();
