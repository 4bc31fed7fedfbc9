// Keyboard: "/" goes to the box, arrow keys walk the grid. Everything else is the browser's own.
// Needs: #q
const box = document.getElementById("q");
const typing = (element) => element.closest("input, textarea, select, [contenteditable]");

function columns(links) {
  const top = links[0].getBoundingClientRect().top;
  const next = links.findIndex((link) => Math.abs(link.getBoundingClientRect().top - top) > 4);
  return next === -1 ? links.length : next;
}

function step(event) {
  const grid = event.target.closest(".grid");
  if (!grid) return;
  const links = [...grid.querySelectorAll(".view")];
  const here = links.indexOf(event.target.closest(".card").querySelector(".view"));
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(links), ArrowUp: -columns(links) };
  const next = links[here + moves[event.key]];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "/") { event.preventDefault(); box.focus(); box.select(); }
  else if (event.key.startsWith("Arrow")) step(event);
});
