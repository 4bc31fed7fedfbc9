// Rows without end: the next page of results is added as one comes near it. The address says the page that is seen,
// and whoever comes back finds the same place.
// Needs: .results #found > .grid
import { keepPlace, last, placeToReturnTo } from "./way_back.js";

const grid = document.querySelector("#found > .grid");
const AHEAD = "1500px";
const BY_ITSELF = 8; // pages; then the link asks, so that the foot of the page can be reached
const pages = [{ address: location.href, first: grid.firstElementChild }];
let nav = document.getElementById("pages");
let loading = null;
let loaded = 0;

const nextLink = () => nav?.querySelector("a[rel=next]");

async function pageAt(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function newCards(page) {
  const known = new Set([...grid.children].map((card) => card.dataset.id));
  return [...page.querySelectorAll("#found > .grid > .card")].filter((card) => !known.has(card.dataset.id)).map((card) => document.adoptNode(card));
}

function announce(cards) { document.dispatchEvent(new CustomEvent("cards", { detail: cards })); }

async function append(address) {
  const page = await pageAt(address);
  const cards = newCards(page);
  grid.append(...cards);
  if (cards.length) pages.push({ address: new URL(address, location.href).href, first: cards[0] });
  const next = page.getElementById("pages")?.querySelector("a[rel=next]");
  if (next) nextLink().replaceWith(document.adoptNode(next));
  else nav.hidden = true;
  announce(cards);
}

async function prepend(address) {
  const cards = newCards(await pageAt(address));
  grid.prepend(...cards);
  if (cards.length) pages.unshift({ address, first: cards[0] });
  announce(cards);
}

function more() {
  const link = nextLink();
  if (!link || nav.hidden || loading) return loading;
  nav.setAttribute("aria-busy", "true");
  loading = append(link.href)
    .catch(() => { loaded = BY_ITSELF; }) // the link is still there to try again
    .finally(() => { loading = null; nav.removeAttribute("aria-busy"); });
  return loading;
}

const watcher = new IntersectionObserver(async (seen) => {
  if (!seen.some((each) => each.isIntersecting)) return;
  while (loaded < BY_ITSELF && nextLink() && !nav.hidden && near()) { loaded += 1; await more(); }
}, { rootMargin: AHEAD });
const near = () => nav.getBoundingClientRect().top < innerHeight + parseInt(AHEAD, 10);

let told = false;
function follow() {
  told = false;
  const here = pages.findLast((page) => page.first.getBoundingClientRect().top < innerHeight / 2) ?? pages[0];
  if (here.address !== location.href) history.replaceState(history.state, "", here.address);
}

function wayBack() {
  const place = placeToReturnTo();
  if (!place) return Promise.resolve();
  history.scrollRestoration = "manual"; // the browser's own place is of the page without the rest
  return restore(place);
}

async function restore({ addresses, top }) {
  const here = addresses.indexOf(location.href);
  if (here < 0) return;
  grid.style.visibility = "hidden"; // nothing is seen to jump
  try {
    for (const address of addresses.slice(here + 1)) await append(address);
    for (const address of addresses.slice(0, here).reverse()) await prepend(address);
  } catch { /* the server is away for a moment: what is there stays */ }
  grid.style.visibility = "";
  scrollTo(0, top);
  const seen = grid.querySelector(`.card[data-id="${CSS.escape(last() ?? "")}"] .view`);
  if (!seen) return;
  const box = seen.getBoundingClientRect();
  if (box.bottom < 0 || box.top > innerHeight) seen.scrollIntoView({ block: "center" });
  seen.focus({ preventScroll: true });
}

// Pages before the first one that is shown stay a link, above the rows.
function moveEarlier() {
  const link = nav?.querySelector("a[rel=prev]");
  if (!link) return;
  const above = document.createElement("p");
  above.className = "pages";
  link.replaceWith(document.createElement("span"));
  above.append(link);
  grid.before(above);
}

moveEarlier();
wayBack().then(() => {
  if (nav) watcher.observe(nav);
  addEventListener("scroll", () => { if (!told) { told = true; requestAnimationFrame(follow); } }, { passive: true });
});
nav?.addEventListener("click", (event) => {
  if (!event.target.closest("a[rel=next]") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  loaded = 0;
  more();
});
addEventListener("pagehide", () => keepPlace({ addresses: pages.map((page) => page.address), top: scrollY }));
