// Keeps the line about a running ingest fresh, as long as one runs or the page has nothing to show yet.
// Needs: #progress

const line = document.getElementById("progress");
const isEmpty = document.querySelector("[data-no-pictures]") !== null;
const EVERY_MS = 2000;

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch(line.dataset.url);
      const { running, images } = await answer.json();
      if (line.textContent !== running) {
        line.textContent = running;
      }
      if (isEmpty && images > 0) {
        location.reload();
        return;
      }
    } catch {
      // The server is away for a moment: the next time tells.
    }
  }
  if (line.textContent || isEmpty) {
    setTimeout(refresh, EVERY_MS);
  }
}

if (line.textContent || isEmpty) {
  setTimeout(refresh, EVERY_MS);
}
