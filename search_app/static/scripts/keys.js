// Keyboard: "/" goes to the box, "?" shows the keys, arrow keys walk the rows. Everything else is the browser's own.
// Needs: #q
const box = document.getElementById("q");
const sheet = document.querySelector("dialog.keys");
const typing = (element) => element.closest("input, textarea, select, [contenteditable]");
const middle = (link) => { const { left, width } = link.getBoundingClientRect(); return left + width / 2; };

// Rows differ in their numbers of pictures: up and down lead to the one whose middle is nearest.
function beyond(links, here, way) {
  const top = (link) => link.getBoundingClientRect().top;
  const mine = top(links[here]);
  const others = links.filter((link) => (way > 0 ? top(link) > mine + 4 : top(link) < mine - 4));
  if (!others.length) return null;
  const row = way > 0 ? Math.min(...others.map(top)) : Math.max(...others.map(top));
  const distance = (link) => Math.abs(middle(link) - middle(links[here]));
  return others.filter((link) => Math.abs(top(link) - row) < 4).reduce((best, link) => (distance(link) < distance(best) ? link : best));
}

function step(event) {
  const grid = event.target.closest(".grid");
  if (!grid) return;
  const links = [...grid.querySelectorAll(".view")];
  const here = links.indexOf(event.target.closest(".card").querySelector(".view"));
  const next = {
    ArrowRight: () => links[here + 1],
    ArrowLeft: () => links[here - 1],
    ArrowDown: () => beyond(links, here, 1),
    ArrowUp: () => beyond(links, here, -1),
  }[event.key]?.();
  if (!next) return;
  event.preventDefault();
  next.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "?") { event.preventDefault(); if (!sheet.open) sheet.showModal(); }
  else if (event.key === "/" && !document.querySelector("dialog[open]")) { event.preventDefault(); box.focus(); box.select(); }
  else if (event.key.startsWith("Arrow")) step(event);
});
sheet.querySelector("button").addEventListener("click", () => sheet.close());
