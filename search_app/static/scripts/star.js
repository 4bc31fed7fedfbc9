// Marks a favourite on its card without leaving the page; without this script its form does.
import { _ } from "./i18n.js";

document.addEventListener("click", async (event) => {
  const star = event.target.closest?.("button.star[data-url]");
  if (!star) return;
  event.preventDefault();
  if (star.disabled) return;
  const marked = star.getAttribute("aria-pressed") === "true";
  const show = (is) => { star.setAttribute("aria-pressed", is); star.value = is ? "unfavourite" : "favourite"; };
  show(!marked);
  try {
    const response = await fetch(star.dataset.url, { method: marked ? "DELETE" : "PUT" });
    if (!response.ok) throw new Error((await response.json()).detail);
    document.getElementById("notice").textContent = "";
  } catch (error) {
    show(marked);
    document.getElementById("notice").textContent = error instanceof TypeError ? _("The server does not answer; nothing was changed.") : error.message;
  }
});
