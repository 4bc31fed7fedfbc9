// Adding pictures: chosen, dropped or pasted, each is sent by itself, two at a time, with its own progress.
// Needs: .add-form
import { _, ngettext, number } from "./i18n.js";

const panel = document.querySelector(".add-panel");
const form = panel?.querySelector(".add-form");
const input = panel?.querySelector(".add-files");
const list = panel?.querySelector(".add-list");
const status = panel?.querySelector(".add-status");
const opener = document.querySelector(".add-open");
const limit = Number(document.body.dataset.maxUpload);
const isDialog = panel instanceof HTMLDialogElement;
const AT_A_TIME = 2;
const WORTH_AGAIN = (code) => code === 0 || code === 429 || code >= 500;
const waiting = [];
const count = { all: 0, sending: 0, added: 0, known: 0, failed: 0 };

const megabytes = (bytes) => `${number(bytes / 1e6, { maximumFractionDigits: 1 })} MB`;
const isOpen = () => (isDialog ? panel.open : true);
const left = () => count.all - count.added - count.known - count.failed;

function open() {
  if (!isDialog || panel.open) return;
  panel.showModal();
  input.focus();
}

// One line for everybody: read aloud when it changes, and on the button while the panel is closed.
function tell() {
  const parts = [];
  if (count.added && left()) parts.push(ngettext("{n} picture added.", "{n} pictures added.", count.added));
  else if (count.added) parts.push(ngettext("{n} picture added, and searches find it now.", "{n} pictures added, and searches find them now.", count.added));
  if (count.known) parts.push(ngettext("{n} picture there already.", "{n} pictures there already.", count.known));
  if (count.failed) parts.push(ngettext("{n} refused.", "{n} refused.", count.failed));
  if (left()) parts.push(ngettext("{n} on the way.", "{n} on the way.", left()));
  status.textContent = parts.join(" ");
  panel.classList.toggle("add-busy", count.all > 0);
  const word = opener?.querySelector(".add-word");
  if (word) word.textContent = left() ? ngettext("Adding {n}…", "Adding {n}…", left()) : _("Add pictures");
}

function link(text, address) {
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.textContent = text;
  return anchor;
}

class Item {
  constructor(file) {
    this.file = file;
    this.row = document.getElementById("add-item").content.cloneNode(true).querySelector("li");
    this.said = this.row.querySelector(".add-said");
    this.image = this.row.querySelector("img");
    this.progress = this.row.querySelector("progress");
    this.links = this.row.querySelector(".add-links");
    this.row.querySelector(".add-name").textContent = file.name;
    this.image.addEventListener("error", () => { this.image.hidden = true; }); // HEIC and TIFF, in most browsers
    this.image.addEventListener("load", () => { if (this.image.src.startsWith("blob:")) URL.revokeObjectURL(this.image.src); });
    list.append(this.row);
  }

  wait() {
    this.row.classList.add("add-waiting");
    this.row.classList.remove("add-failed");
    this.said.textContent = _("Waiting…");
    this.links.replaceChildren();
    this.links.hidden = true;
    this.progress.hidden = false;
    this.progress.value = 0;
  }

  show(source) {
    this.image.src = source;
    this.image.hidden = false;
  }

  sending(share) {
    this.progress.value = share;
    this.said.textContent = _("Sending… {percent} %", { percent: Math.round(share * 100) });
  }

  captioning() {
    this.progress.removeAttribute("value");
    this.said.textContent = _("Captioning and indexing…");
  }

  done(picture) {
    this.settle();
    const { image_id: id, caption } = picture;
    this.show(picture.thumbnail_url);
    this.image.alt = caption ?? this.file.name;
    this.said.textContent = caption ?? _("Added; a caption will follow.");
    if (picture.status === 200) this.row.querySelector(".add-name").textContent += ` · ${_("was there already")}`;
    this.links.append(link(_("Open"), `${document.body.dataset.root}/images/${id}`));
    this.links.append(caption ? link(_("Search for it"), `${document.body.dataset.root}/?q=${encodeURIComponent(caption)}`) : link(_("More like it"), `${document.body.dataset.root}/?like=${id}`));
    this.links.hidden = false;
  }

  failed(sentence, again) {
    this.settle();
    this.row.classList.add("add-failed");
    this.said.textContent = sentence;
    if (!again) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "add-retry";
    button.textContent = _("Try again");
    button.setAttribute("aria-label", _("Try again: {name}", { name: this.file.name }));
    button.addEventListener("click", () => { count.failed -= 1; enqueue(this); input.focus(); });
    this.links.append(button);
    this.links.hidden = false;
  }

  settle() {
    this.row.classList.remove("add-waiting");
    this.progress.hidden = true;
  }
}

function refusal(file) {
  if (file.size === 0) return _("'{name}' is empty, or a folder.", { name: file.name });
  if (file.size > limit) return _("'{name}' has {size}; at most {limit} each can be added.", { name: file.name, size: megabytes(file.size), limit: megabytes(limit) });
  return null;
}

function send(item) {
  const request = new XMLHttpRequest();
  const body = new FormData();
  body.append("image", item.file, item.file.name);
  request.responseType = "json";
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) item.sending(event.loaded / event.total); });
  request.upload.addEventListener("load", () => item.captioning());
  request.addEventListener("loadend", () => {
    count.sending -= 1;
    answered(item, request.status, request.response);
    tell();
    next();
  });
  request.open("POST", form.dataset.api);
  item.show(URL.createObjectURL(item.file));
  item.sending(0);
  request.send(body);
}

function answered(item, code, answer) {
  const [picture] = answer?.images ?? [];
  if (code >= 200 && code < 300 && picture?.image_id) {
    if (picture.status === 201) count.added += 1; else count.known += 1;
    item.done(picture);
    return;
  }
  count.failed += 1;
  const otherwise = code ? _("The server answered with {code}.", { code }) : _("'{name}' did not arrive: the connection broke.", { name: item.file.name });
  item.failed(answer?.detail ?? otherwise, WORTH_AGAIN(code));
}

function next() {
  while (count.sending < AT_A_TIME && waiting.length) {
    count.sending += 1;
    send(waiting.shift());
  }
}

function enqueue(item) {
  item.wait();
  waiting.push(item);
  tell();
  next();
}

function add(files) {
  open();
  for (const file of files) {
    count.all += 1;
    const item = new Item(file);
    const sentence = refusal(file);
    if (sentence) { count.failed += 1; item.failed(sentence, false); } else enqueue(item);
  }
  tell();
}

function listen() {
  opener?.addEventListener("click", (event) => {
    if (!isDialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open();
  });
  panel.querySelector(".add-close")?.addEventListener("click", () => panel.close());
  panel.addEventListener("close", () => opener.focus());
  input.addEventListener("change", () => { const files = [...input.files]; input.value = ""; add(files); });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); input.click(); } });
  addEventListener("beforeunload", (event) => { if (left()) event.preventDefault(); });
}

// A picture on a page of results is for searching; several, or any on the open panel, are for adding.
// These listeners come before those of picture.js, and keep from them what is theirs.
function catchFiles() {
  const curtain = document.querySelector(".drop p");
  const alone = curtain.textContent;
  const filesIn = (transfer) => [...(transfer?.items ?? [])].filter((item) => item.kind === "file").length;
  document.addEventListener("dragover", (event) => {
    const files = filesIn(event.dataTransfer);
    curtain.textContent = files > 1 ? ngettext("Drop to add this picture", "Drop to add these {n} pictures", files) : alone;
    if (!files || !isOpen()) return;
    event.preventDefault();
    event.stopPropagation();
    panel.classList.add("add-over");
  }, true);
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) panel.classList.remove("add-over"); }, true);
  const take = (event, files) => {
    panel.classList.remove("add-over");
    if (!files.length || !(isOpen() || files.length > 1)) return;
    event.preventDefault();
    event.stopPropagation();
    curtain.parentElement.hidden = true;
    add(files);
  };
  document.addEventListener("drop", (event) => take(event, [...(event.dataTransfer?.files ?? [])]), true);
  document.addEventListener("paste", (event) => take(event, [...(event.clipboardData?.files ?? [])]), true);
}

listen();
catchFiles();
