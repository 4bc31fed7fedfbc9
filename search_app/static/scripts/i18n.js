// Strings in the reader's language. The page carries the translations that scripts need; English has none.
const data = JSON.parse(document.getElementById("strings")?.textContent || "{}");
const strings = data.strings ?? {};
export const language = data.language ?? "en";
const plurals = new Intl.PluralRules(language);

// _("Sending… {percent} %", { percent: 40 })
export function _(text, values = {}) {
  return filled(strings[text] ?? text, values);
}

// ngettext("{n} picture", "{n} pictures", 3): every language here has two forms
export function ngettext(one, many, n, values = {}) {
  const forms = strings[one] ?? [one, many];
  return filled(forms[plurals.select(n) === "one" ? 0 : 1], { n: number(n), ...values });
}

export function number(value, options = {}) {
  return new Intl.NumberFormat(language, options).format(value);
}

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
