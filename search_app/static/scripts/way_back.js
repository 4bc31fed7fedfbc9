// Where one was in the results: kept in this tab, so that the way back from a picture leads to the same place.
const LAST = "results:last";
const RETURN = "results:return";

function keep(name, value) { try { sessionStorage.setItem(name, JSON.stringify(value)); } catch { /* private window */ } }
function recall(name) { try { return JSON.parse(sessionStorage.getItem(name)); } catch { return null; } }

// The picture that was looked at last, by the address of its page
export function remember(address) {
  const id = new URL(address, location.href).pathname.split("/").pop();
  keep(LAST, id);
}

export function last() { return recall(LAST); }

// The same search on any of its pages has one place
function placeOf(address) {
  const { pathname, searchParams } = new URL(address, location.href);
  searchParams.delete("page");
  return `results:${pathname}?${searchParams}`;
}

export function keepPlace(place) { keep(placeOf(location.href), place); }

// Only for somebody who comes back: a new search begins at its top.
export function placeToReturnTo() {
  const [navigation] = performance.getEntriesByType("navigation");
  const comesBack = navigation?.type === "back_forward" || navigation?.type === "reload" || recall(RETURN) === placeOf(location.href);
  keep(RETURN, null);
  return comesBack ? recall(placeOf(location.href)) : null;
}

document.querySelector("a.back")?.addEventListener("click", (event) => keep(RETURN, placeOf(event.currentTarget.href)));
