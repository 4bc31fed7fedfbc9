// Buttons that copy a text, and say so.
import { _ } from "./i18n.js";

for (const button of document.querySelectorAll("button[data-copy]")) {
  if (!navigator.clipboard) continue; // browsers have one on HTTPS and on this machine only
  button.hidden = false;
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = _("Copied");
    } catch {
      button.textContent = _("Not copied: select it instead");
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
}
