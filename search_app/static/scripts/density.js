// How large the pictures of the rows are: look.js sets it before the page is painted, these buttons change it.
// Needs: .density
const root = document.documentElement;
const buttons = [...document.querySelectorAll(".density button")];

function mark() {
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.size === root.dataset.density));
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    root.dataset.density = button.dataset.size;
    try { localStorage.setItem("density", button.dataset.size); } catch { /* private window */ }
    mark();
  });
}
mark();
