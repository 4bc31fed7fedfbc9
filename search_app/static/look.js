// The light and the dark look, and the class for pages with JavaScript. Loaded before the page is painted,
// so that nothing flashes.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const kept = () => { try { return localStorage.getItem("look"); } catch { return null; } };
  const keep = (look) => { try { localStorage.setItem("look", look); } catch { /* private window */ } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.look || (system.matches ? "dark" : "light");
  if (kept()) root.dataset.look = kept();
  try { root.dataset.density = localStorage.getItem("density") || "medium"; } catch { root.dataset.density = "medium"; }
  addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("button.look");
    if (!button) return; // the page for signing in
    const name = () => button.setAttribute("aria-label", shown() === "dark" ? button.dataset.light : button.dataset.dark);
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      root.dataset.look = shown() === "dark" ? "light" : "dark";
      keep(root.dataset.look);
      name();
    });
  });
})();
