// Shows the API's document, and tries its calls. What the document or an answer says is text here, never markup.
"use strict";

const base = "/api/v1";

function element(name, attributes, ...children) {
  const it = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) it.setAttribute(key, value);
  it.append(...children);
  return it;
}

// What a schema looks like, as a value to begin from.
function example(api, schema, depth = 0) {
  if (!schema || depth > 6) return null;
  if (schema.$ref) return example(api, api.components.schemas[schema.$ref.split("/").pop()], depth + 1);
  if (schema.examples) return schema.examples[0];
  if (schema.default !== undefined) return schema.default;
  const first = (schema.oneOf || schema.anyOf || []).find((it) => it.type !== "null");
  if (first) return example(api, first, depth + 1);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object") {
    const required = (schema.required || []).map((name) => [name, schema.properties[name]]);
    return Object.fromEntries(required.map(([name, it]) => [name, example(api, it, depth + 1)]));
  }
  if (type === "array") return [example(api, schema.items, depth + 1)];
  return { string: "", integer: 1, boolean: false }[type] ?? null;
}

async function send(method, path, fields, body, output) {
  let url = base + path;
  const query = new URLSearchParams();
  for (const { name, place, input } of fields) {
    if (place === "path") url = url.replace(`{${name}}`, encodeURIComponent(input.value));
    if (place === "query" && input.value) query.set(name, input.value);
  }
  if (query.size) url += `?${query}`;
  const headers = {};
  const key = document.getElementById("key").value;
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  output.textContent = `${method} ${url} …`;
  try {
    const answer = await fetch(url, { method, headers, body: body ? body.value : undefined });
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* It is no JSON, and is shown as it came. */ }
    output.textContent = `${answer.status} ${answer.statusText}\n\n${shown}`;
  } catch (error) {
    output.textContent = `There was no answer: ${error.message}`;
  }
}

function call(api, path, method, operation) {
  const form = element("form", {});
  if (operation.description) form.append(element("p", {}, operation.description));
  const fields = [];
  for (const { name, in: place, description, required } of operation.parameters || []) {
    if (place === "header") continue;
    const input = element("input", { name, autocomplete: "off" });
    input.required = Boolean(required);
    fields.push({ name, place, input });
    form.append(element("label", {}, `${name}${required ? "" : " (may be left out)"}: ${description || ""}`, input));
  }
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const body = schema ? element("textarea", { name: "body", spellcheck: "false" }) : null;
  if (body) {
    body.value = JSON.stringify(example(api, schema), null, 2);
    form.append(element("label", {}, "Body", body));
  }
  const output = element("pre", { "aria-live": "polite" });
  form.append(element("button", { type: "submit" }, "Call it"), output);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(method.toUpperCase(), path, fields, body, output);
  });
  const head = element("summary", {}, element("b", {}, method.toUpperCase()), element("code", {}, path), operation.summary);
  return element("details", { id: operation.operationId }, head, form);
}

async function main() {
  const about = document.getElementById("about");
  const api = await (await fetch(`${base}/openapi.json`)).json();
  about.textContent = `${api.info.title} ${api.info.version}: ${api.info.description}`;
  const sections = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = operation.tags[0];
      if (!sections.has(tag)) sections.set(tag, element("section", {}, element("h2", {}, tag)));
      sections.get(tag).append(call(api, path, method, operation));
    }
  }
  document.getElementById("calls").append(...sections.values());
}

main().catch((error) => { document.getElementById("about").textContent = `It cannot be loaded: ${error.message}`; });
