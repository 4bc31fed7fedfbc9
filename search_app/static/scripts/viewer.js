// The picture alone: zoom, pan, turn to the next one, slideshow. The address follows, so that closing shows its page.
// Needs: .viewer
import { remember } from "./way_back.js";

const viewer = document.querySelector(".viewer");
const stage = viewer.querySelector(".stage");
const image = stage.querySelector("img");
const caption = viewer.querySelector(".viewer-name");
const buttons = Object.fromEntries([...viewer.querySelectorAll("[data-do]")].map((each) => [each.dataset.do, each]));
const frame = document.querySelector(".frame");
const sheet = frame.querySelector(".sheet");
const LARGEST = 8; // times the fitted size
const STEP = 1.4;
const SLIDE_MS = 5000;
const SWIPE = 60; // pixels

const begun = location.href;
const pages = new Map(); // address -> promise of what its page shows
let shown = read(document, location.href);
let scale = 1;
let at = { x: 0, y: 0 }; // of the picture's centre, from the stage's
let fitted = { width: 0, height: 0 };
let playing = null;
let film = null;

function read(page, address) {
  const { dataset } = page.querySelector(".detail");
  const small = page.querySelector(".sheet img");
  return {
    address,
    small: dataset.small,
    screen: dataset.screen,
    film: dataset.film,
    width: Number(small.getAttribute("width")) || 0,
    height: Number(small.getAttribute("height")) || 0,
    name: page.getElementById("name").textContent,
    title: page.title,
    previous: dataset.previous,
    following: dataset.following,
  };
}

function ask(address) {
  if (!pages.has(address)) {
    pages.set(address, fetch(address).then(async (answer) => {
      if (!answer.ok) throw new Error(`answered ${answer.status}`);
      return read(new DOMParser().parseFromString(await answer.text(), "text/html"), new URL(address, location.href).href);
    }));
    pages.get(address).catch(() => pages.delete(address));
  }
  return pages.get(address);
}

function show(picture) {
  shown = picture;
  endFilm();
  buttons.film.hidden = !picture.film;
  image.src = picture.small;
  image.alt = picture.name;
  caption.textContent = picture.name;
  buttons.previous.disabled = !picture.previous;
  buttons.following.disabled = !picture.following;
  fit();
  if (picture.screen !== picture.small) {
    const whole = new Image();
    whole.src = picture.screen;
    whole.decode().then(() => { if (shown === picture) image.src = picture.screen; }).catch(() => {}); // the small one stays
  }
  if (picture.following) ask(picture.following).then((next) => { new Image().src = next.small; }).catch(() => {});
}

function fit() {
  const width = shown.width || image.naturalWidth || 512;
  const height = shown.height || image.naturalHeight || 512;
  const factor = Math.min(stage.clientWidth / width, stage.clientHeight / height, Math.max(1, 512 / Math.max(width, height)));
  fitted = { width: width * factor, height: height * factor };
  image.style.width = `${fitted.width}px`;
  image.style.height = `${fitted.height}px`;
  scale = 1;
  at = { x: 0, y: 0 };
  place();
}

function place() {
  const room = (side, whole) => Math.max(0, (side * scale - whole) / 2);
  const held = (value, most) => Math.min(most, Math.max(-most, value));
  at = { x: held(at.x, room(fitted.width, stage.clientWidth)), y: held(at.y, room(fitted.height, stage.clientHeight)) };
  image.style.transform = `translate(${at.x}px, ${at.y}px) scale(${scale})`;
  viewer.classList.toggle("zoomed", scale > 1);
}

// `point`: what stays where it is, from the stage's centre
function zoom(factor, point = { x: 0, y: 0 }) {
  const next = Math.min(LARGEST, Math.max(1, scale * factor));
  const by = next / scale;
  scale = next;
  at = { x: point.x - (point.x - at.x) * by, y: point.y - (point.y - at.y) * by };
  place();
}

function fromCentre(event) {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
}

async function turn(which) {
  const address = shown[which];
  if (!address) { stop(); return; }
  try {
    const from = shown;
    const picture = await ask(address);
    if (shown !== from) return;
    show(picture);
    history.replaceState(history.state, "", picture.address);
    document.title = picture.title;
    remember(picture.address);
  } catch { stop(); } // the server is away: the picture stays
}

function play() {
  if (playing) { stop(); return; }
  playing = setInterval(() => turn("following"), SLIDE_MS);
  buttons.play.setAttribute("aria-pressed", "true");
}

function stop() {
  clearInterval(playing);
  playing = null;
  buttons.play.setAttribute("aria-pressed", "false");
}

// The film of a live or motion photo, or of a film's moment, in the place of the picture.
function playFilm() {
  if (film) { endFilm(); return; }
  if (!shown.film) return;
  stop();
  film = document.createElement("video");
  Object.assign(film, { src: shown.film, poster: shown.small, controls: true, loop: true, playsInline: true });
  film.setAttribute("aria-label", buttons.film.title);
  stage.append(film);
  buttons.film.setAttribute("aria-pressed", "true");
  film.play().catch(() => {}); // its controls say why
}

function endFilm() {
  film?.pause();
  film?.remove();
  film = null;
  buttons.film.setAttribute("aria-pressed", "false");
}

function open() {
  viewer.showModal();
  show(shown);
  buttons.close.focus();
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else viewer.querySelector(".viewer-all").requestFullscreen?.().catch(() => {});
}

const deeds = {
  in: () => zoom(STEP),
  out: () => zoom(1 / STEP),
  play,
  film: playFilm,
  full: fullScreen,
  keys: () => document.querySelector("dialog.keys").showModal(),
  close: () => viewer.close(),
  previous: () => turn("previous"),
  following: () => turn("following"),
};
for (const [name, button] of Object.entries(buttons)) button.addEventListener("click", deeds[name]);
buttons.play.setAttribute("aria-pressed", "false");
buttons.full.hidden = !document.fullscreenEnabled;

viewer.addEventListener("close", () => {
  stop();
  endFilm();
  if (document.fullscreenElement) document.exitFullscreen();
  if (location.href !== begun) location.reload(); // the page of the picture that was shown last
  else sheet.focus();
});

const PAN = 80;
const rightToLeft = document.dir === "rtl";
const arrow = (key) => (key === "ArrowLeft") === rightToLeft ? "following" : "previous";

viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === film && event.key.startsWith("Arrow")) return; // to and fro in the film
  const pans = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] };
  if (pans[event.key]) {
    if (scale > 1) { at.x += pans[event.key][0]; at.y += pans[event.key][1]; place(); }
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") turn(arrow(event.key));
  } else if (event.key === "+" || event.key === "=") zoom(STEP);
  else if (event.key === "-") zoom(1 / STEP);
  else if (event.key === "0") fit();
  else if (event.key === "n" || event.key === "PageDown") turn("following");
  else if (event.key === "p" || event.key === "PageUp") turn("previous");
  else if (event.key === "s") play();
  else if (event.key === "v") playFilm();
  else if (event.key === "f") fullScreen();
  else return;
  event.preventDefault();
});

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), fromCentre(event));
}, { passive: false });

stage.addEventListener("dblclick", (event) => { if (scale > 1) fit(); else zoom(2.5, fromCentre(event)); });

// One finger moves an enlarged picture, or swipes to the next; two fingers zoom.
const fingers = new Map();
let start = null;
stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || event.target === film) return;
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, fromCentre(event));
  start = fingers.size === 1 ? fromCentre(event) : null;
});
stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = fromCentre(event);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (other) {
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
    at.x += (now.x - before.x) / 2;
    at.y += (now.y - before.y) / 2;
    zoom(apart(now) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
  } else if (scale > 1) {
    at.x += now.x - before.x;
    at.y += now.y - before.y;
    place();
  }
});
function lift(event) {
  const now = fromCentre(event);
  const isLast = fingers.delete(event.pointerId) && fingers.size === 0;
  if (!isLast || !start || scale > 1 || event.type === "pointercancel") return;
  const [across, down] = [now.x - start.x, now.y - start.y];
  if (Math.abs(across) > SWIPE && Math.abs(across) > Math.abs(down)) turn((across < 0) === rightToLeft ? "previous" : "following");
  else if (down > 2 * SWIPE) viewer.close();
}
stage.addEventListener("pointerup", lift);
stage.addEventListener("pointercancel", lift);
addEventListener("resize", () => { if (viewer.open) fit(); });

const live = frame.querySelector(".live");
live?.addEventListener("toggle", () => {
  const player = live.querySelector("video");
  if (live.open) player.play().catch(() => {});
  else player.pause();
});

// On the page itself: a click opens it, arrow keys and a swipe turn the page.
sheet.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
  event.preventDefault();
  open();
});
for (const link of frame.querySelectorAll(".step")) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link.href);
  });
}

// In place of this page: one step back leads to the results, however many pictures were looked at.
function go(address) {
  if (!address) return;
  remember(address);
  location.replace(address);
}

// A dialog that has just closed may keep the focus for a moment: only an open one has the keys.
const busy = (element) => element.closest("input, textarea, select, [contenteditable], .grid, dialog[open], summary, video");
const isOfFilm = (event) => event.key === "v" && live?.contains(event.target);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (busy(event.target) && !isOfFilm(event)) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "f") open();
  else if (event.key === "v" && live) live.open = !live.open;
  else if (event.key === "b") document.querySelector("a.back")?.click();
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") go(shown[arrow(event.key)]);
  else return;
  event.preventDefault();
});

let touched = null;
frame.addEventListener("touchstart", (event) => { touched = event.touches.length === 1 ? event.touches[0] : null; }, { passive: true });
frame.addEventListener("touchend", (event) => {
  if (!touched || visualViewport?.scale > 1) return;
  const [end] = event.changedTouches;
  const [across, down] = [end.clientX - touched.clientX, end.clientY - touched.clientY];
  if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) go(shown[(across < 0) === rightToLeft ? "previous" : "following"]);
});
remember(location.href);
