// The slider: it says the number of candidates as it moves, and asks again when it rests.
// Needs: .probe
import { ngettext } from "./i18n.js";

const form = document.querySelector(".probe");
const slider = form.querySelector("input[type=range]");
const steps = slider.dataset.steps.split(" ");
const WAIT_MS = 150;
let waiting;
let latest;

function say() {
  const candidates = steps[slider.value];
  form.querySelector("output").textContent = candidates;
  slider.setAttribute("aria-valuetext", ngettext("{n} candidate", "{n} candidates", Number(candidates)));
}

async function ask() {
  const state = new URLSearchParams(new FormData(form));
  if (!["q", "like", "vector"].some((name) => (state.get(name) ?? "").trim())) return;
  const address = `${form.action}?${state}`;
  latest = address;
  const response = await fetch(address);
  if (latest !== address) return; // moved on meanwhile
  if (!response.ok) { location.assign(address); return; } // the page of that error says what is wrong
  const answer = new DOMParser().parseFromString(await response.text(), "text/html");
  document.getElementById("compared").replaceChildren(...answer.getElementById("compared").childNodes);
  history.replaceState(null, "", address);
}

slider.addEventListener("input", () => {
  say();
  clearTimeout(waiting);
  waiting = setTimeout(ask, WAIT_MS);
});
say();
