// A part of a picture: draw a rectangle with the mouse or a finger, move it by dragging or by the arrow keys.
// Needs: .part
const EDGES = ["left", "top", "width", "height"];
const LEAST = 3; // per cent
const STEP = 2;

for (const fold of document.querySelectorAll(".part")) begin(fold);

function begin(fold) {
  const form = fold.querySelector("form");
  const sheet = form.querySelector(".cut");
  const frame = form.querySelector(".cutting");
  const edges = Object.fromEntries(EDGES.map((name) => [name, form.elements[name]]));
  const read = () => Object.fromEntries(EDGES.map((name) => [name, Number(edges[name].value) || 0]));
  let from = null;

  function show() {
    const part = read();
    for (const name of EDGES) frame.style[name] = `${part[name]}%`;
    frame.hidden = false;
  }

  function set(part) {
    const width = Math.min(100, Math.max(LEAST, part.width));
    const height = Math.min(100, Math.max(LEAST, part.height));
    const whole = { width, height, left: within(part.left, 100 - width), top: within(part.top, 100 - height) };
    for (const name of EDGES) edges[name].value = Math.round(whole[name] * 10) / 10;
    show();
  }

  function place(event) {
    const box = sheet.getBoundingClientRect();
    return {
      x: within(((event.clientX - box.left) / box.width) * 100, 100),
      y: within(((event.clientY - box.top) / box.height) * 100, 100),
    };
  }

  sheet.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    frame.focus({ preventScroll: true });
    sheet.setPointerCapture(event.pointerId);
    from = { ...place(event), moved: event.target === frame ? read() : null };
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = place(event);
    if (from.moved) set({ ...from.moved, left: from.moved.left + to.x - from.x, top: from.moved.top + to.y - from.y });
    else set({ left: Math.min(from.x, to.x), top: Math.min(from.y, to.y), width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y) });
  });
  for (const end of ["pointerup", "pointercancel"]) sheet.addEventListener(end, () => { from = null; });

  frame.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: ["left", -STEP], ArrowRight: ["left", STEP], ArrowUp: ["top", -STEP], ArrowDown: ["top", STEP] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    const [edge, by] = move;
    const name = event.shiftKey ? { left: "width", top: "height" }[edge] : edge;
    const part = read();
    set({ ...part, [name]: part[name] + by });
  });
  for (const name of EDGES) edges[name].addEventListener("input", show);
  show();

  form.addEventListener("submit", () => remember(form, read()));
}

function within(value, most) {
  return Math.min(Math.max(value, 0), most);
}

// A small copy of the part stays in this tab, to be shown on its chip.
function remember(form, part) {
  const image = form.querySelector(".cut img");
  const canvas = document.createElement("canvas");
  const [width, height] = [(image.naturalWidth * part.width) / 100, (image.naturalHeight * part.height) / 100];
  const factor = Math.min(1, 160 / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * factor));
  canvas.height = Math.max(1, Math.round(height * factor));
  try {
    canvas.getContext("2d").drawImage(image, (image.naturalWidth * part.left) / 100, (image.naturalHeight * part.top) / 100, width, height, 0, 0, canvas.width, canvas.height);
    sessionStorage.setItem("picture:next", canvas.toDataURL("image/jpeg", 0.8));
  } catch { /* no storage: no preview */ }
}
