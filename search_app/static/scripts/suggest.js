// Completes what is typed into the box: recent searches of this browser, and names that the index knows.
// A combobox of ARIA: arrow keys walk, Enter takes, Escape closes. One request follows a pause, never each letter.
// Needs: #q
import { _ } from "./i18n.js";

const box = document.getElementById("q");
const form = box.form;
const root = document.body.dataset.root;
const KEY = "recent";
const MOST_RECENT = 8;
const PAUSE_MS = 180;
const SHORTEST = 2;
const REST_MS = 30_000;
const KINDS = {
  tag: _("keyword"), person: _("person"), place: _("place"), camera: _("camera"),
  folder: _("folder"), file: _("file"), recent: _("searched before"),
};
const list = document.createElement("ul");
const answers = new Map();
let at = -1;
let waiting;
let asking;
let restUntil = 0;

function recent() {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? []; } catch { return []; }
}

function keep(texts) {
  try { localStorage.setItem(KEY, JSON.stringify(texts.slice(0, MOST_RECENT))); } catch { /* a private window */ }
}

function remember() {
  const text = box.value.trim();
  if (text) keep([text, ...recent().filter((each) => each !== text)]);
}

function close() {
  list.hidden = true;
  at = -1;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}

// The state of the search in the address, with the words that stay and the filter that was chosen.
function addressOf({ kind, text, rest, image_id: id }) {
  if (kind === "file") return `${root}/images/${id}${location.search}`;
  const state = new URLSearchParams(location.search);
  const wasAsked = ["q", "like", "vector"].some((name) => state.has(name));
  state.delete("page");
  if (!wasAsked && state.get("sort") === "newest") state.delete("sort"); // as every list is sorted
  state.delete("q");
  if (rest) state.set("q", rest);
  state.set(kind, text);
  return `${root}/?${state}`;
}

function take(item) {
  if (item.kind === "recent") {
    box.value = item.text;
    form.requestSubmit();
  } else if (item.kind === "clear") {
    keep([]);
    close();
  } else {
    location.assign(addressOf(item));
  }
}

function entry(item, number) {
  const line = document.createElement("li");
  const said = document.createElement("span");
  said.textContent = item.rest ? `${item.rest} · ${item.text}` : item.text;
  said.dir = "auto";
  line.append(said);
  if (item.kind === "clear") line.className = "clear";
  else {
    const kind = document.createElement("span");
    kind.className = "kind";
    kind.textContent = item.mended ? _("did you mean this {kind}?", { kind: KINDS[item.kind] }) : KINDS[item.kind];
    line.append(kind);
  }
  line.id = `suggest-${number}`;
  line.setAttribute("role", "option");
  line.setAttribute("aria-selected", "false");
  line.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  line.addEventListener("click", () => take(item));
  line.item = item;
  return line;
}

function show(items) {
  list.replaceChildren(...items.map(entry));
  at = -1;
  box.removeAttribute("aria-activedescendant");
  list.hidden = !items.length;
  box.setAttribute("aria-expanded", String(Boolean(items.length)));
}

function showRecent() {
  const texts = recent();
  const typed = box.value.trim().toLowerCase();
  const fitting = texts.filter((text) => text.toLowerCase().startsWith(typed) && text !== box.value.trim());
  const items = fitting.map((text) => ({ kind: "recent", text }));
  if (items.length && !typed) items.push({ kind: "clear", text: _("Forget these searches") });
  return items;
}

async function ask(text) {
  if (answers.has(text)) return answers.get(text);
  if (Date.now() < restUntil) return [];
  asking?.abort();
  asking = new AbortController();
  const answer = await fetch(`${root}/api/v1/suggest?${new URLSearchParams({ q: text })}`, { signal: asking.signal });
  if (answer.status === 429) restUntil = Date.now() + REST_MS;
  if (!answer.ok) return [];
  const { suggestions } = await answer.json();
  answers.set(text, suggestions);
  return suggestions;
}

async function complete() {
  const text = box.value.trim();
  const before = showRecent().slice(0, 3);
  if (text.length < SHORTEST || text.length > 100) { show(text ? before : showRecent()); return; }
  try {
    const found = await ask(text);
    if (box.value.trim() === text && document.activeElement === box) show([...before, ...found]);
  } catch { /* a newer question took its place, or the server is away: typing goes on */ }
}

function walk(step) {
  const lines = [...list.children];
  if (!lines.length) return;
  lines[at]?.setAttribute("aria-selected", "false");
  at = at + step < -1 ? lines.length - 1 : at + step >= lines.length ? -1 : at + step;
  const line = lines[at];
  line?.setAttribute("aria-selected", "true");
  line?.scrollIntoView({ block: "nearest" });
  if (line) box.setAttribute("aria-activedescendant", line.id);
  else box.removeAttribute("aria-activedescendant");
}

list.id = "suggest";
list.className = "suggest";
list.hidden = true;
list.setAttribute("role", "listbox");
list.setAttribute("aria-label", _("Suggestions"));
const pill = box.closest(".pill");
pill.classList.add("suggest-anchor");
pill.append(list);
for (const [name, value] of Object.entries({
  role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false",
})) box.setAttribute(name, value);

box.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(complete, PAUSE_MS); });
box.addEventListener("pointerup", () => { if (!box.value.trim() && list.hidden) show(showRecent()); });
box.addEventListener("blur", close);
box.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (list.hidden) { if (event.key === "ArrowDown") complete(); } else walk(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && at >= 0 && !list.hidden) {
    event.preventDefault();
    take(list.children[at].item);
  } else if (event.key === "Escape" && !list.hidden) {
    event.preventDefault();
    event.stopPropagation();
    close();
  }
});
form.addEventListener("submit", () => { clearTimeout(waiting); asking?.abort(); close(); remember(); });
