// Addresses of other sites are never opened by the server: an address that is pasted or dropped gets a sentence.
// Needs: #notice
import { _ } from "./i18n.js";

const notice = document.getElementById("notice");
const box = document.getElementById("q");
const ADDRESS = /^\s*https?:\/\/\S+\s*$/i;

function explain() {
  notice.textContent = _("Glimpse opens no addresses. Save the picture, then drop it here or choose its file.");
}

const isLink = (transfer) => transfer?.types.includes("text/uri-list") && !transfer.types.includes("Files");

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files.length;
  if (!files && ADDRESS.test(event.clipboardData?.getData("text/plain") ?? "")) explain();
});
document.addEventListener("dragover", (event) => {
  if (isLink(event.dataTransfer) && event.target !== box) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!isLink(event.dataTransfer) || event.target === box) return;
  event.preventDefault();
  explain();
});
