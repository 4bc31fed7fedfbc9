// Choosing pictures: ranges with Shift, all with Ctrl+A, one by "x", none with Escape; without leaving the page.
// Needs: #chosen
import { _, ngettext } from "./i18n.js";

const bar = document.getElementById("chosen");
const count = bar.querySelector(".how-many");
const outcome = bar.querySelector(".outcome");
const undo = bar.querySelector('[data-do="undo"]');
const boxes = () => [...document.querySelectorAll('.card:not(.leaving) input[form="chosen"]')];
const chosen = () => boxes().filter((box) => box.checked);
let last = null;
let away = [];

function show() {
  const all = boxes(), picked = chosen();
  count.textContent = ngettext("{n} picture chosen", "{n} pictures chosen", picked.length);
  bar.querySelector('[data-do="all"]').hidden = picked.length === all.length;
  if (picked.length && !undo.hidden) { undo.hidden = true; outcome.textContent = ""; }
  bar.classList.toggle("done", !picked.length && outcome.textContent !== "");
}

function say(text, canUndo = false) {
  outcome.textContent = text;
  undo.hidden = !canUndo;
  show();
  undo.hidden = !canUndo;
}

function pick(box, to, range) {
  const all = boxes(), here = all.indexOf(box), from = all.indexOf(last);
  const some = range && from >= 0 ? all.slice(Math.min(from, here), Math.max(from, here) + 1) : [box];
  for (const each of some) each.checked = to;
  last = box;
  outcome.textContent = "";
  show();
}

function setAll(to) {
  for (const each of boxes()) each.checked = to;
  outcome.textContent = "";
  show();
}

async function ask(url, body) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}

async function copyPaths(ids) {
  const text = await (await ask(bar.dataset.export, { ids, format: "paths" })).text();
  await navigator.clipboard.writeText(text.trimEnd());
  say(ngettext("Path copied", "{n} paths copied", ids.length));
}

async function edit(ids, changes, done) {
  const answer = await (await ask(bar.dataset.edit, { ids, ...changes })).json();
  const left = ids.length - answer.done.length;
  say(left ? ngettext("{n} picture was not changed.", "{n} pictures were not changed.", left) : done(ids.length));
}

async function hide(ids) {
  const answer = await (await ask(bar.dataset.hide, { ids })).json();
  away = answer.done;
  for (const box of boxes()) {
    if (!away.includes(box.value)) continue;
    box.checked = false;
    box.closest(".card").classList.add("leaving");
  }
  say(ngettext("{n} picture hidden.", "{n} pictures hidden.", away.length), true);
  undo.focus();
}

async function putBack() {
  const answer = await (await ask(bar.dataset.restore, { ids: away })).json();
  for (const box of document.querySelectorAll('.card.leaving input[form="chosen"]')) {
    if (answer.done.includes(box.value)) box.closest(".card").classList.remove("leaving");
  }
  say(ngettext("{n} picture is back.", "{n} pictures are back.", answer.done.length));
}

const acts = {
  all: () => setAll(true),
  undo: putBack,
  hide,
  paths: copyPaths,
  favourite: (ids) => edit(ids, { favourite: true }, (n) => ngettext("{n} picture is a favourite now.", "{n} pictures are favourites now.", n)),
  keyword: (ids) => {
    const field = bar.querySelector('[name="keyword"]');
    const word = field.value.trim();
    if (!word) { field.focus(); return say(_("Write a keyword first.")); }
    return edit(ids, { add_keywords: [word] }, (n) => ngettext("“{word}” added to {n} picture.", "“{word}” added to {n} pictures.", n, { word }));
  },
};

bar.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-do]");
  const act = acts[button?.dataset.do];
  if (!act || (button.dataset.do === "paths" && !navigator.clipboard)) return;
  event.preventDefault();
  try {
    await act(chosen().map((box) => box.value));
  } catch (error) {
    say(error instanceof TypeError ? _("The server does not answer; nothing was changed.") : error.message);
  }
});

bar.addEventListener("reset", (event) => { event.preventDefault(); setAll(false); });

document.addEventListener("click", (event) => {
  const box = event.target.closest?.('input[form="chosen"]');
  if (box) pick(box, box.checked, event.shiftKey);
});

document.addEventListener("keydown", (event) => {
  const card = event.target.closest?.(".card");
  const box = card?.querySelector('input[form="chosen"]');
  if (event.key === "Escape" && chosen().length && !event.target.closest?.("dialog, [type=search]")) setAll(false);
  else if (!box || event.altKey) return;
  else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") { event.preventDefault(); setAll(true); }
  else if (!event.ctrlKey && !event.metaKey && event.key.toLowerCase() === "x") pick(box, !box.checked, event.shiftKey);
});

addEventListener("pageshow", show); // a browser may bring checked boxes back
