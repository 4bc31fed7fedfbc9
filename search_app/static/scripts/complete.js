// Completes the fields of the filters from the values of the index, by the browser's own list of choices.
// Needs: input[data-complete]
const root = document.body.dataset.root;
const PAUSE_MS = 200;
const REST_MS = 30_000;
let restUntil = 0;

for (const field of document.querySelectorAll("input[data-complete]")) {
  const choices = document.createElement("datalist");
  const asked = new Map();
  let waiting;
  choices.id = `choices-${field.name}`;
  field.after(choices);
  field.setAttribute("list", choices.id);
  field.autocomplete = "off";

  const fill = async () => {
    const text = field.value.trim().slice(0, 100);
    try {
      if (!asked.has(text)) {
        if (Date.now() < restUntil) return;
        const question = new URLSearchParams({ kind: field.dataset.complete, q: text, limit: "20" });
        const answer = await fetch(`${root}/api/v1/suggest?${question}`);
        if (answer.status === 429) restUntil = Date.now() + REST_MS;
        if (!answer.ok) return;
        asked.set(text, (await answer.json()).suggestions.map((each) => each.text));
      }
      choices.replaceChildren(...asked.get(text).map((value) => new Option(value, value)));
    } catch { /* the server is away: what is typed is still sent */ }
  };

  field.addEventListener("focus", fill);
  field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(fill, PAUSE_MS); });
}
