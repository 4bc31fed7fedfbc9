// Searching with a picture: chosen, dropped or pasted, it goes through the same form.
// Needs: form.show
import { _ } from "./i18n.js";

const form = document.querySelector("form.show");
const input = form.querySelector("input[type=file]");
const notice = document.getElementById("notice");
const curtain = document.querySelector(".drop");
const limit = Number(document.body.dataset.maxUpload);
const SCALED_SIDES = [1600, 800, 400];
const PREVIEW_SIDE = 400;

async function scaled(file, side, quality) {
  const bitmap = await createImageBitmap(file);
  const factor = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * factor));
  canvas.height = Math.max(1, Math.round(bitmap.height * factor));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return { canvas, blob: await new Promise((done) => canvas.toBlob(done, "image/jpeg", quality)) };
}

// A small copy stays in this tab only, to be shown beside the results; without storage there is none.
async function rememberPreview(file) {
  try {
    sessionStorage.removeItem("picture:next");
    const { canvas } = await scaled(file, PREVIEW_SIDE, 0.8);
    sessionStorage.setItem("picture:next", canvas.toDataURL("image/jpeg", 0.8));
  } catch { /* no storage, or no picture that a browser can read */ }
}

async function fitted(file) {
  if (file.size <= limit) return file;
  try {
    for (const side of SCALED_SIDES) {
      const { blob } = await scaled(file, side, 0.9);
      if (blob.size <= limit) return new File([blob], "picture.jpg", { type: "image/jpeg" });
    }
  } catch { /* no picture that a browser can read */ }
  return file; // the server says what is wrong with it
}

async function searchWith(file) {
  notice.textContent = _("Looking for pictures like yours…");
  await rememberPreview(file);
  const transfer = new DataTransfer();
  transfer.items.add(await fitted(file));
  input.files = transfer.files;
  form.submit();
}

function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
}

// The part of an address that a copy is kept under; weights stand after a `^`.
const keyOf = (vector) => "picture:" + vector.split("^")[0].slice(0, 64);

function showPreviews() {
  const vectors = new URLSearchParams(location.search).getAll("vector");
  if (!vectors.length) return;
  try {
    const next = sessionStorage.getItem("picture:next");
    sessionStorage.removeItem("picture:next");
    if (next) sessionStorage.setItem(keyOf(vectors.at(-1)), next);
    const places = [...document.querySelectorAll("img.yours")].map((place) => [place, "picture:" + place.dataset.key]);
    const whole = document.getElementById("yours");
    if (whole) places.push([whole, keyOf(vectors[0])]);
    for (const [place, key] of places) {
      const kept = sessionStorage.getItem(key);
      if (kept) { place.src = kept; place.hidden = false; }
    }
    if (whole && !whole.hidden) offerParts(whole.src);
  } catch { /* no storage, or it is full: no preview */ }
}

// The server keeps no picture that was shown to it: a part of it is cut out of the copy in this tab.
function offerParts(source) {
  const fold = document.querySelector(".about ~ .part");
  if (!fold) return;
  const transfer = new DataTransfer();
  // The copy is a data address, which this page may show and may not fetch.
  const bytes = Uint8Array.from(atob(source.split(",")[1]), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
  fold.querySelector("input[type=file]").files = transfer.files;
  fold.querySelector(".cut img").src = source;
  fold.hidden = false;
}

input.addEventListener("change", () => { if (input.files[0]) searchWith(input.files[0]); });

input.addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); input.click(); }
});

document.addEventListener("paste", (event) => {
  const file = pictureIn(event.clipboardData);
  if (file) { event.preventDefault(); searchWith(file); }
});

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  curtain.hidden = false;
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) curtain.hidden = true; });
document.addEventListener("drop", (event) => {
  curtain.hidden = true;
  if (!carriesFiles(event)) return;
  event.preventDefault();
  const file = pictureIn(event.dataTransfer);
  if (file) searchWith(file);
  else notice.textContent = _("That is not a picture. Drop a JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF file.");
});

addEventListener("pageshow", () => { notice.textContent = ""; });
showPreviews();
