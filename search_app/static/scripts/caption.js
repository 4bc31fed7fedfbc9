// Correcting a caption without leaving the page; without this script the form does the same.
// Needs: #correct
import { _ } from "./i18n.js";

const form = document.getElementById("correct");
const field = form.querySelector("textarea");
const button = form.querySelector("button");
const saved = document.getElementById("saved");

function show(picture) {
  const before = document.getElementById("name").textContent;
  document.getElementById("name").textContent = picture.caption;
  document.getElementById("by").textContent = _("Caption written by a person");
  document.querySelector(".frame img").alt = picture.caption;
  document.title = document.title.replace(before, () => picture.caption);
  field.value = picture.caption;
}

async function save() {
  const response = await fetch(form.dataset.url, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ caption: field.value }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  show(answer);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  saved.textContent = _("Saving…");
  try {
    await save();
    saved.textContent = _("Saved: searches find it now.");
  } catch (error) {
    saved.textContent = error instanceof TypeError ? _("The server does not answer; nothing was saved.") : error.message;
  }
  button.disabled = false;
});
