// Keeps the page of the state fresh: often while something runs, seldom otherwise, and never in a hidden tab.
// Needs: #status
const place = document.getElementById("status");
const RUNNING_MS = 3_000;
const RESTING_MS = 30_000;
let trouble = 0;

function later() {
  const isRunning = place.querySelector("[data-running]")?.dataset.running !== "0";
  setTimeout(refresh, (isRunning ? RUNNING_MS : RESTING_MS) * (1 + trouble));
}

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch(place.dataset.url);
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
      const before = place.textContent.replace(/\s+/g, " ");
      if (fresh.textContent.replace(/\s+/g, " ") !== before) place.replaceChildren(...fresh.childNodes);
      trouble = 0;
    } catch {
      trouble = Math.min(trouble + 1, 9); // the server is away: ask less and less often
    }
  }
  later();
}

later();
