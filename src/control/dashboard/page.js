// The dashboard's frame: which page is shown, the stream of figures that all of it is fed by, and the pages that ask the API.
// What always holds: one stream, however often pages change; a number of 64 bits stays a string.
import { NONE, Problem, ask, askKey, bytes, call, card, count, el, headers, known, list, moment, table } from "./parts.js";
import { overview } from "./overview.js";

const main = document.getElementById("main");
const HOUR_MS = 3_600_000;
const feed = { columns: [], times: [], series: {}, loads: [], state: null };
let page = { update() {}, over() {} };

// ---- figures ----------------------------------------------------------------------------------------

function takeHistory({ columns, samples }) {
  Object.assign(feed, { columns, times: [], loads: [], series: Object.fromEntries(columns.map((name) => [name, []])) });
  samples.forEach(takeSample);
}

function takeSample({ at_ms, values, loads }) {
  if (feed.times.length && at_ms <= feed.times.at(-1)) return;
  feed.times.push(at_ms);
  feed.loads.push(loads);
  feed.columns.forEach((name, at) => feed.series[name].push(values[at]));
  while (feed.times[0] < at_ms - HOUR_MS) {
    feed.times.shift();
    feed.loads.shift();
    feed.columns.forEach((name) => feed.series[name].shift());
  }
}

function takeEvent(name, data) {
  if (name === "history") takeHistory(data);
  if (name !== "sample") return;
  takeSample(data.sample);
  feed.state = data.state;
  const { state } = feed;
  document.getElementById("where").textContent = `node ${state.node} · ${state.version}`;
  say(state.ready ? (state.degraded ? "warn" : "good") : "bad", state.ready ? (state.degraded ? "Serving, not everything can be had" : "Serving") : `Not ready: ${state.stage.replaceAll("_", " ")}`);
  main.classList.remove("stale");
  page.update();
}

function say(kind, text) {
  const status = document.getElementById("status");
  if (status.className !== `status ${kind}`) status.className = `status ${kind}`;
  const place = document.getElementById("status-text");
  if (place.textContent !== text) place.textContent = text;
}

async function follow() {
  const answer = await fetch("/api/v1/dashboard/stream", { headers: headers() });
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
      if (field("data")) takeEvent(field("event"), JSON.parse(field("data")));
    }
  }
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function followAlways() {
  for (;;) {
    let why = "The gateway cannot be reached; trying again";
    let ms = 1_000;
    try {
      await follow();
    } catch (problem) {
      if (problem.status === 401) {
        if (await askKey()) continue;
        [why, ms] = ["A key is needed to see figures", 30_000];
      } else if (problem.status) {
        [why, ms] = [problem.message, 5_000];
      }
    }
    main.classList.add("stale");
    say("bad", why);
    await Promise.race([wait(ms), new Promise((done) => (retry = done))]);
  }
}
let retry = () => {};

// ---- pages ------------------------------------------------------------------------------------------

function finder(title, label, value, path, children = []) {
  const input = el("input", { id: "find", inputmode: "numeric", pattern: "[0-9]+", autocomplete: "off", placeholder: "A number", value });
  const go = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (/^[0-9]+$/.test(text)) location.hash = `#/${path}/${text}`;
    else input.setCustomValidity("");
    if (location.hash === `#/${path}/${text}`) show();
  };
  const form = el("form", { class: "find", onsubmit: go, role: "search" }, el("label", {}, label, input), el("button", { class: "strong" }, "Show"));
  main.replaceChildren(el("div", { class: "head" }, el("h1", {}, title)), form, ...children);
  if (!value) input.focus({ preventScroll: true });
  return form;
}

// Fills a place with what a call answers, or with why it does not.
async function fill(place, work) {
  place.setAttribute("aria-busy", "true");
  try {
    place.replaceChildren(...(await work()));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    place.replaceChildren(el("p", { class: "notice bad", role: "alert" }, problem.message));
  }
  place.removeAttribute("aria-busy");
}

const link = (path, id) => el("a", { href: `#/${path}/${id}` }, id);
const result = () => el("div", { id: "result", class: "panels" });
const wide = (child, width = "all") => el("div", { class: width }, child);

async function kick(user, device, reload) {
  const what = device === null ? `All sessions of user ${user} end` : `The session of user ${user} on device ${device} ends`;
  if (!(await ask("End sessions?", `${what}. The client does not come back by itself; the user may log in again.`, "End"))) return;
  try {
    await call("DELETE", `/users/${user}/sessions` + (device === null ? "" : `?device=${device}`));
  } catch (problem) {
    return fill(document.getElementById("result"), () => { throw problem; });
  }
  // It is over in a moment.
  await wait(300);
  reload();
}

function users(user) {
  const place = result();
  finder("Users", "User", user, "users", [place]);
  if (!user) return;
  const load = () => fill(place, async () => {
    const [seen, { events, node }] = await Promise.all([call("GET", `/users/${user}`), call("GET", `/users/${user}/events`)]);
    const end = el("button", { type: "button", class: "danger small", id: "kick-all", onclick: () => kick(user, null, load) }, "End all");
    const sessions = table([
      ["Device", (it) => it.device],
      ["Node", (it) => known(it.node), "n"],
      ["State", (it) => known(it.connection?.state?.replaceAll("_", " "))],
      ["Since", (it) => moment(it.since_ms)],
      ["Last heard", (it) => moment(it.connection?.heard_ms)],
      ["Rows behind", (it) => count(it.connection?.rows_behind), "n"],
      ["Acknowledged", (it) => known(it.connection?.acknowledged_seq), "n"],
      ["Peer", (it) => known(it.connection?.peer)],
      ["", (it) => el("button", { type: "button", class: "danger small", "aria-label": `End the session on device ${it.device}`, onclick: () => kick(user, it.device, load) }, "End"), "n"],
    ], seen.sessions, "Nobody is logged in as this user.");
    const groups = seen.groups ?? null;
    const sessionCard = card("Sessions, on all nodes", sessions);
    if (seen.sessions.length) sessionCard.firstChild.append(end);
    return [
      wide(sessionCard),
      wide(card("User", list([
        ["Number", user],
        ["Online", seen.online ? "yes" : "no"],
        ["Newest row", known(seen.newest_seq)],
        ["Groups", groups === null ? NONE : groups.length ? el("span", { class: "row end" }, groups.slice(0, 50).map((id) => link("groups", id)), groups.length > 50 ? `and ${groups.length - 50} more` : null) : "none"],
      ])), "four"),
      wide(card(`What happened lately, on node ${node}`, table([
        ["When", (it) => moment(it.at_ms)],
        ["What", (it) => it.event.replaceAll("_", " ")],
        ["Why", (it) => known(it.why)],
        ["Times", (it) => count(it.times), "n"],
        ["Device", (it) => it.device],
        ["Connection", (it) => it.connection],
      ], events.toReversed(), "Nothing is known.")), "rest"),
    ];
  });
  load();
}

function messages(id) {
  const place = result();
  finder("Messages", "Message", id, "messages", [place]);
  if (!id) return;
  fill(place, async () => {
    const it = await call("GET", `/messages/${id}`);
    const recipients = [...it.recipients];
    const rows = el("div");
    const [kind, to] = Object.entries(it.to)[0];
    const devices = (all) => (all === undefined ? NONE : all.length ? all.join(", ") : "none");
    const given = (session) => `${session.device} ${session.pushed === undefined ? `on node ${session.node}` : session.pushed ? "has it" : "not yet"}`;
    const draw = () => rows.replaceChildren(table([
      ["User", (one) => link("users", one.user)],
      ["Row", (one) => known(one.seq), "n"],
      ["Sessions now", (one) => (one.sessions.length ? one.sessions.map(given).join(", ") : "offline")],
      ["Acknowledged by devices", (one) => devices(one.acknowledged)],
      ["Lacking on devices", (one) => devices(one.lacking)],
    ], recipients, "Nobody."));
    draw();
    let next = it.next;
    const more = el("button", { type: "button", hidden: next === undefined, onclick: async () => {
      const page = await call("GET", `/messages/${id}?after=${next}`);
      recipients.push(...page.recipients);
      next = page.next;
      more.hidden = next === undefined;
      draw();
    } }, "Show more");
    return [
      wide(card("Message", list([
        ["From", link("users", it.from)],
        ["To", el("span", {}, `${kind} `, link(kind === "user" ? "users" : "groups", to))],
        ["Sent", moment(it.sent_at_ms)],
        ["Name", el("code", {}, it.client_msg_id)],
        ["Length", bytes(it.body_bytes)],
        ["Durable in", `the ${it.kept_in}`],
        ["Place in the journal", known(it.journal_position)],
        ["Recipients", count(it.recipients_count ?? null)],
      ])), "four"),
      wide(card("Recipients", rows, more), "rest"),
      ...(it.webhooks.length ? [wide(card("Endpoints", table([
        ["Endpoint", (hook) => hook.webhook],
        ["State", (hook) => hook.state],
        ["Past this message", (hook) => (hook.past === undefined ? NONE : hook.past ? "yes" : "no")],
        ["Last failure", (hook) => known(hook.last_failure)],
      ], it.webhooks, "")))] : []),
    ];
  });
}

function groups(id) {
  const place = result();
  finder("Groups", "Group", id, "groups", [place]);
  if (!id) return;
  fill(place, async () => {
    const it = await call("GET", `/groups/${id}`);
    const shown = it.members.slice(0, 500);
    return [
      wide(card("Group", list([
        ["Number", id], ["Owner", link("users", it.owner)], ["Members", count(it.members.length)], ["Version", known(it.version)],
      ])), "four"),
      wide(card("Members", el("p", { class: "row" }, shown.map((user) => link("users", user)), it.members.length > 500 ? `and ${count(it.members.length - 500)} more` : null)), "rest"),
    ];
  });
}

function webhooks() {
  const place = result();
  main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Webhooks")), place);
  const load = () => fill(place, async () => {
    const { webhooks } = await call("GET", "/webhooks");
    const resume = (name) => fill(place, async () => {
      await call("POST", `/webhooks/${name}/resume`);
      setTimeout(load, 500);
      return [];
    });
    return [wide(card("Endpoints", table([
      ["Endpoint", (it) => it.webhook],
      ["State", (it) => it.state],
      ["Behind", (it) => bytes(it.behind_bytes), "n"],
      ["Events taken", (it) => count(it.events_total), "n"],
      ["Requests failed", (it) => count(it.failures_total), "n"],
      ["Skipped", (it) => bytes(it.skipped_bytes_total), "n"],
      ["Last failure", (it) => (it.last_failure ? `${moment(it.last_failure_ms)}: ${it.last_failure}` : NONE)],
      ["Next try", (it) => moment(it.next_try_ms)],
      ["Address", (it) => it.url],
      ["", (it) => el("button", { type: "button", class: "small", onclick: () => resume(it.webhook) }, "Try now")],
    ], webhooks, "None is configured: webhooks.endpoints_file names a file of them.")))];
  });
  load();
}

function settings() {
  const place = result();
  main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "Settings in force")), place);
  fill(place, async () => {
    const { generation, settings } = await call("GET", "/config");
    const rows = el("div");
    const draw = (text) => rows.replaceChildren(table([
      ["Setting", (it) => el("code", {}, it.setting)],
      ["Value", (it) => el("code", {}, known(it.value))],
      ["From", (it) => it.origin],
      ["Changes", (it) => ({ now: "while it runs", at_reload: "in the files, at SIGHUP" })[it.changes] ?? "at a start"],
      ["At the next start", (it) => (it.next_value === undefined ? NONE : el("code", {}, it.next_value))],
      ["What it is", (it) => it.about],
    ], settings.filter((it) => it.setting.includes(text) || it.about.toLowerCase().includes(text)), "No setting is called so."));
    const find = el("input", { id: "filter", placeholder: "Find a setting", "aria-label": "Find a setting", oninput: (event) => draw(event.target.value.trim().toLowerCase()) });
    draw("");
    return [wide(el("section", { class: "card" }, el("div", { class: "title" }, el("h2", {}, `Generation ${known(generation)}`), find), rows))];
  });
}

const PAGES = { "": () => overview(main, feed), users, messages, groups, webhooks, settings };

function show() {
  const [, name = "", id = ""] = location.hash.split("/");
  page.over();
  const wanted = PAGES[name] ?? PAGES[""];
  page = wanted(/^[0-9]*$/.test(id) ? id : "") ?? { update() {}, over() {} };
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.getAttribute("href") === `#/${name}`) {
      anchor.setAttribute("aria-current", "page");
      anchor.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else anchor.removeAttribute("aria-current");
  }
  document.title = name ? `${name[0].toUpperCase()}${name.slice(1)} · Ringway` : "Ringway";
  page.update();
}

// ---- colours, key -----------------------------------------------------------------------------------

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

function setTheme(theme) {
  const button = document.getElementById("theme");
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.textContent = THEMES[theme];
  button.setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system has them" : theme}`);
  localStorage.setItem("ringway.theme", theme);
  page.update();
}

document.getElementById("theme").addEventListener("click", () => {
  const all = Object.keys(THEMES);
  setTheme(all[(all.indexOf(localStorage.getItem("ringway.theme") ?? "auto") + 1) % all.length]);
});
document.getElementById("key").addEventListener("click", async () => {
  if (await askKey()) {
    retry();
    show();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.update());
addEventListener("hashchange", show);
const kept = localStorage.getItem("ringway.theme") ?? "auto";
setTheme(kept in THEMES ? kept : "auto");
show();
followAlways();
