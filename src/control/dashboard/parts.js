// What all pages are made of: elements, numbers as people read them, calls of the API. What always holds: text is put in as text,
// never as HTML; what is not known is a dash.
export const NONE = "–";

// An element: el("p", {class: "quiet", onclick: f}, "text", otherElement).
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  if (!isNumber(value)) return NONE;
  if (Math.abs(value) >= 1e9) return (value / 1e9).toFixed(2) + " G";
  if (Math.abs(value) >= 1e7) return (value / 1e6).toFixed(1) + " M";
  if (Math.abs(value) < 10 && !Number.isInteger(value)) return value.toFixed(1);
  return Math.round(value).toLocaleString("en-US");
}

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) [value, at] = [value / 1024, at + 1];
  return (at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)) + " " + units[at];
}

export function millis(value) {
  if (!isNumber(value)) return NONE;
  if (value >= 10_000) return (value / 1_000).toFixed(0) + " s";
  if (value >= 1_000) return (value / 1_000).toFixed(1) + " s";
  if (value >= 100) return value.toFixed(0) + " ms";
  return (value === 0 ? "0" : value.toFixed(value >= 10 ? 1 : 2)) + " ms";
}

export function seconds(value) {
  if (!isNumber(value)) return NONE;
  if (value < 60) return (Number.isInteger(value) ? value : value.toFixed(1)) + " s";
  return span(value * 1_000);
}

export function percent(value) {
  return isNumber(value) ? (value * 100).toFixed(value > 0 && value < 0.0995 ? 1 : 0) + " %" : NONE;
}

export function span(ms) {
  if (!isNumber(ms)) return NONE;
  const s = Math.max(0, Math.floor(ms / 1_000));
  const [d, h, m] = [Math.floor(s / 86_400), Math.floor(s / 3_600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

export function moment(ms) {
  if (!isNumber(ms)) return NONE;
  const at = new Date(ms);
  const two = (n) => String(n).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export const known = (value) => (value === undefined || value === null || value === "" ? NONE : String(value));

// A table: columns are [head, cell of a row, "n" for a number].
export function table(columns, rows, nothing) {
  if (!rows.length) return el("p", { class: "empty" }, nothing);
  const head = el("tr", {}, columns.map(([name, , kind]) => el("th", { class: kind, scope: "col" }, name)));
  const line = (row) => el("tr", {}, columns.map(([, cell, kind]) => el("td", { class: kind }, cell(row))));
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": columns[0][0] + ", table" },
    el("table", {}, el("thead", {}, head), el("tbody", {}, rows.map(line))));
}

export function list(pairs, kind = "") {
  return el("dl", { class: "list " + kind }, pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export function card(title, ...children) {
  return el("section", { class: "card" }, el("div", { class: "title" }, el("h2", {}, title)), ...children);
}

// ---- the API ----------------------------------------------------------------------------------------

const KEY = "ringway.key";
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export class Problem extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? "the gateway cannot be reached");
    this.status = status;
    this.code = problem?.code ?? "";
  }
}

export function headers() {
  return key.get() ? { Authorization: "Bearer " + key.get() } : {};
}

// Calls the API; asks for a key when one is needed, and calls again.
export async function call(method, path, body) {
  const send = { method, headers: headers() };
  if (body !== undefined) {
    send.body = JSON.stringify(body);
    send.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch("/api/v1" + path, send);
  } catch {
    throw new Problem(0);
  }
  const json = await answer.json().catch(() => null);
  if (answer.ok) return json;
  if (answer.status === 401 && (await askKey())) return call(method, path, body);
  throw new Problem(answer.status, json);
}

// ---- dialogs ----------------------------------------------------------------------------------------

let open = null;

// Asks; resolves to the text, or true, or null.
export function ask(title, text, yes, wantsKey = false) {
  if (open) return open;
  const by = (id) => document.getElementById(id);
  const dialog = by("ask");
  by("ask-title").textContent = title;
  by("ask-text").textContent = text;
  by("ask-yes").textContent = yes;
  by("ask-label").hidden = !wantsKey;
  by("ask-input").value = "";
  dialog.returnValue = "no";
  open = new Promise((done) => {
    const closed = () => {
      open = null;
      done(dialog.returnValue === "yes" ? (wantsKey ? by("ask-input").value.trim() : true) : null);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
  // Enter presses the first button otherwise.
  by("ask-input").onkeydown = (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      dialog.close("yes");
    }
  };
  dialog.showModal();
  (wantsKey ? by("ask-input") : by("ask-yes")).focus();
  return open;
}

export async function askKey() {
  const text = "A key of the file api.keys_file. It is kept in this tab until the tab is closed. With the scope read it shows " +
    "figures, users and messages; with operate also settings and webhooks, and it can end sessions.";
  const given = await ask("This gateway asks for a key", text, "Use it", true);
  if (given === null) return false;
  key.set(given);
  return true;
}
