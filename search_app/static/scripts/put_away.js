// Hiding one picture with a moment of undo; without this script the form goes back to the results.
// Needs: #put-away
import { _ } from "./i18n.js";

const form = document.getElementById("put-away");
const [button, undo] = form.querySelectorAll("button");
const outcome = form.querySelector(".outcome");
const detail = document.querySelector(".detail");

async function ask(url, method) {
  const response = await fetch(url, { method });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

async function change(work) {
  button.disabled = undo.disabled = true;
  try {
    await work();
  } catch (error) {
    outcome.textContent = error instanceof TypeError ? _("The server does not answer; nothing was changed.") : error.message;
  }
  button.disabled = undo.disabled = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  change(async () => {
    const answer = await ask(form.dataset.url, "DELETE");
    outcome.textContent = answer.state === "removed" ? _("Removed, and deleted for good in ten minutes.") : _("Hidden: no search finds it.");
    button.hidden = true;
    undo.hidden = false;
    detail?.classList.add("gone");
    undo.focus();
  });
});

undo.addEventListener("click", () =>
  change(async () => {
    await ask(form.dataset.undo, "POST");
    outcome.textContent = _("It is back.");
    button.hidden = false;
    undo.hidden = true;
    detail?.classList.remove("gone");
    button.focus();
  }),
);
