// The first page: what the gateway does now and did in the last hour.
import { NONE, bytes, card, count, el, known, list, millis, percent, seconds, span } from "./parts.js";
import { clockOf, plot, sparkline } from "./chart.js";

const RANGES = [["5 min", 5], ["15 min", 15], ["1 h", 60]];
let minutes = 15;

// [id, title, column, figure, what stands under it]
const CARDS = [
  ["connections", "Connections", "connections", count, (at, state) => `of ${count(state.connections_max)} · ${count(at("sessions"))} logged in`],
  ["logins", "Logins", "logins", count, (at) => `${count(at("behind"))} catching up`, "/s"],
  ["messages", "Messages", "messages", count, (at, state) => `${count(state.ledger.messages_total)} since the start`, "/s"],
  ["deliveries", "Deliveries", "deliveries", count, (at) => `${bytes(at("bytes_out"))}/s to clients`, "/s"],
  ["latency", "Delivery p99", "delivery_p99", millis, (at) => `p50 ${millis(at("delivery_p50"))}`],
  ["lag", "Store lag", "lag_s", seconds, (at) => `${bytes(at("lag_bytes"))} not in the database`],
];

// [title, width, format, series: [name, column, colour, filled, dashed]]
const PLOTS = [
  ["Messages and frames a second", "six", count, [["messages", "messages", "--accent", true], ["frames from clients", "frames_in", "--second"]]],
  ["Deliveries a second", "six", count, [["deliveries", "deliveries", "--accent", true]]],
  ["Latency, over 5 seconds", "six", millis, [["delivery p99", "delivery_p99", "--accent", true], ["delivery p50", "delivery_p50", "--text"], ["ack p99", "ack_p99", "--second"], ["fdatasync p99", "sync_p99", "--second", false, true]]],
  ["Load of the shards", "six", percent, "loads"],
];

export function overview(main, feed) {
  const choice = el("div", { class: "choice", role: "group", "aria-label": "Time that is shown" });
  const choose = (range) => {
    minutes = range;
    for (const button of choice.children) button.setAttribute("aria-pressed", String(button.dataset.minutes === String(range)));
    update();
  };
  for (const [name, range] of RANGES) {
    const button = el("button", { type: "button", onclick: () => choose(range), "data-minutes": range }, name);
    button.setAttribute("aria-pressed", String(range === minutes));
    choice.append(button);
  }
  const notices = el("div", { id: "notices" });
  const cards = CARDS.map(smallCard);
  const plots = PLOTS.map(largePlot);
  const tables = Object.fromEntries(
    ["shards", "queues", "health", "nodes", "closes", "shed"].map((name) => [name, el("div", { id: name })]),
  );
  main.replaceChildren(
    el("div", { class: "head" }, el("h1", {}, "Overview"), choice),
    notices,
    el("div", { class: "cards live" }, cards.map((one) => one.element)),
    el("div", { class: "panels live" },
      plots.map((one) => one.element),
      el("div", { class: "six" }, card("Shards", tables.shards)),
      el("div", { class: "six" }, card("Queues", tables.queues)),
      el("div", { class: "four" }, card("Journal, database, Redis", tables.health)),
      el("div", { class: "four" }, card("Closed connections, by reason", tables.closes)),
      el("div", { class: "four" }, card("Nodes and endpoints", tables.nodes), tables.shed),
    ),
  );

  function update() {
    const { state } = feed;
    if (!state || !feed.times.length) return;
    const to = feed.times.at(-1);
    // What is shorter than what is asked for fills the width, once it is a minute.
    const window = { from: Math.max(to - minutes * 60_000, Math.min(feed.times[0], to - 60_000)), to };
    const at = (column) => feed.series[column]?.at(-1) ?? null;
    cards.forEach((one) => one.update(feed, window, at, state));
    plots.forEach((one) => one.update(feed, window));
    notices.replaceChildren(...state.reasons.map((why) => el("p", { class: "notice" + (state.ready ? "" : " bad") }, why)));
    tables.shards.replaceChildren(shards(state));
    tables.queues.replaceChildren(queues(state, at));
    tables.health.replaceChildren(health(state, at));
    tables.nodes.replaceChildren(nodes(state));
    tables.closes.replaceChildren(closes(state));
  }

  const resized = new ResizeObserver(() => update());
  resized.observe(main);
  return { update, over: () => resized.disconnect() };
}

function smallCard([id, title, column, figure, under, unit]) {
  const value = el("span", { id: `${id}-value` }, NONE);
  const below = el("p", { class: "under" }, NONE);
  const canvas = el("canvas", { class: "spark", "aria-hidden": "true" });
  const element = el("section", { class: "card" }, el("h2", {}, title), el("p", { class: "figure" }, value, unit ? el("small", {}, unit) : null), below, canvas);
  const update = (feed, { from, to }, at, state) => {
    value.textContent = figure(at(column));
    below.textContent = under(at, state);
    sparkline(canvas, feed.times, feed.series[column], from, to);
  };
  return { element, update };
}

function largePlot([title, width, format, names]) {
  const legend = el("p", { class: "legend" });
  const canvas = el("canvas", { class: "plot", role: "img", "aria-label": title });
  const element = el("section", { class: `card ${width}` }, el("div", { class: "title" }, el("h2", {}, title), legend), canvas);
  let [pointer, last] = [null, null];
  const update = (feed, window) => {
    last = [feed, window];
    const series = names === "loads" ? loads(feed) : names.map(([name, column, colour, filled, dashed]) => ({ name, values: feed.series[column], colour, filled, dashed }));
    const at = plot(canvas, feed.times, series, window.from, window.to, format, pointer);
    legend.replaceChildren(
      ...(at === null ? [] : [el("b", {}, clockOf(feed.times[at]))]),
      ...series.map((one, place) => el("span", { class: place === 0 ? "first" : "" }, one.name + " ", el("b", {}, format(one.values?.[at ?? feed.times.length - 1] ?? null)))),
    );
  };
  const move = (x) => {
    pointer = x;
    if (last) update(...last);
  };
  canvas.addEventListener("pointermove", (event) => move(event.offsetX));
  canvas.addEventListener("pointerleave", () => move(null));
  return { element, update };
}

// The busiest in front; of many the others are one line.
function loads(feed) {
  const highest = feed.loads.map((all) => {
    const knownOnes = all.filter((load) => load !== null);
    return knownOnes.length ? Math.max(...knownOnes) : null;
  });
  const mean = feed.loads.map((all) => {
    const knownOnes = all.filter((load) => load !== null);
    return knownOnes.length ? knownOnes.reduce((sum, load) => sum + load, 0) / knownOnes.length : null;
  });
  const lines = [{ name: "busiest", values: highest, colour: "--accent", filled: true }];
  if ((feed.loads.at(-1)?.length ?? 0) > 1) lines.push({ name: "mean", values: mean, colour: "--second" });
  return lines;
}

const bar = (part) => {
  const fill = el("div", { class: "fill" });
  fill.style.width = `${Math.min(1, Math.max(0, part ?? 0)) * 100}%`;
  return el("div", { class: "track" }, fill);
};

function shards(state) {
  return el("div", { class: "bars" }, state.shards.flatMap((shard) => [
    el("span", {}, `Shard ${shard.shard}`),
    bar(shard.load),
    el("span", { class: "n" }, shard.connections === undefined ? "has not reported" : `${percent(shard.load)} · ${count(shard.sessions)} sessions`),
  ]));
}

function queues(state, at) {
  const sum = (name) => (state.shards.every((shard) => name in shard) ? state.shards.reduce((all, shard) => all + shard[name], 0) : null);
  return list([
    ["Submissions to the ledger", count(at("submissions"))],
    ["Commits to shards", count(sum("commits"))],
    ["Envelopes between shards", count(sum("lanes"))],
    ["Questions to the store", count(at("store_asks"))],
    ["Answers of the store", count(sum("answers"))],
    ["Bytes for clients", bytes(at("outbox_bytes"))],
    ["Sessions that catch up", count(at("behind"))],
  ]);
}

const tag = (kind, text) => el("span", { class: `tag ${kind}` }, el("span", { class: "dot" }), text);

function health(state, at) {
  const { journal, store, cluster } = state;
  const database = store.broken ? tag("bad", "contradicts the journal") : store.unavailable ? tag("bad", "takes no writes") : store.known ? tag("good", "well") : NONE;
  const redis = !cluster ? "not used" : cluster.stands_still ? tag("bad", cluster.stands_still) : tag("good", "well");
  return list([
    ["Journal", journal.full ? tag("bad", "takes nothing") : at("submissions") === null ? NONE : tag("good", "well")],
    ["Free on its disk", bytes(journal.disk_free_bytes)],
    ["fdatasync p99", millis(at("sync_p99"))],
    ["Database", database],
    ["Behind the journal", `${seconds(at("lag_s"))} · ${bytes(at("lag_bytes"))}`],
    ["Rows stored", count(store.known ? store.rows_total : null)],
    ["Redis", redis],
    ["Clock against Redis", cluster ? millis(cluster.clock_skew_ms) : NONE],
  ]);
}

function closes(state) {
  const reasons = Object.entries(state.closes).sort(([, a], [, b]) => b - a).slice(0, 9);
  if (!reasons.length) return el("p", { class: "empty" }, "None since the start.");
  const most = reasons[0][1];
  return el("div", { class: "bars" }, reasons.flatMap(([reason, times]) => [el("span", {}, reason), bar(times / most), el("span", { class: "n" }, count(times))]));
}

function nodes(state) {
  const others = state.cluster ? state.cluster.others.join(", ") || "none" : "no cluster";
  const refused = Object.entries(state.shed);
  return list([
    ["This node", known(state.node)],
    ["Others that are alive", others],
    ["Version", state.version],
    ["Running for", span(state.up_ms)],
    ...state.webhooks.map((hook) => [`Endpoint ${hook.webhook}`, tag(hook.state === "telling" || hook.state === "standby" ? "good" : "bad", `${hook.state}, ${bytes(hook.behind_bytes)} behind`)]),
    ...refused.slice(0, 4).map(([what, times]) => [`Refused: ${what}`, count(times)]),
    ...(refused.length ? [] : [["Refused for want of room", "none"]]),
  ]);
}
