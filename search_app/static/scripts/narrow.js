// Counts of a question are fetched when somebody opens them: until then a search costs nothing more.
// Needs: .narrow[data-url]
import { _ } from "./i18n.js";

const panel = document.querySelector(".narrow[data-url]");

panel.addEventListener("toggle", async () => {
  if (!panel.open || panel.dataset.asked) return;
  panel.dataset.asked = "yes";
  const place = panel.querySelector("p");
  try {
    const address = new URL(panel.dataset.url, location.href);
    address.searchParams.set("part", "1");
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(String(answer.status));
    const part = document.createElement("div");
    part.append(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
    place.replaceWith(part);
  } catch {
    delete panel.dataset.asked;
    place.append(` ${_("The server does not answer; try again.")}`);
  }
});
