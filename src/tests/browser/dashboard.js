// The dashboard in a real browser: figures that move, a user who is found and kicked, a message that is followed, at two widths and
// in light and dark; no errors, no breach of the page's policy, nothing wider than the screen, contrasts of 4.5 and more.
//
// Arguments: the gateway's address, a key, a user, a message to that user, a group, a directory for screenshots. Each wait is for
// something on the page; whatever is wrong ends it with 1.
const { chromium } = require("playwright-core");
const [base, key, user, message, group, shots] = process.argv.slice(2);
const PATIENCE = 60_000;

// What a text and what it stands on differ by (WCAG 2.2, 1.4.3), of every text that is seen.
function contrasts() {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const parts = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
  const light = (colour) => {
    const [r, g, b] = colour.map((it) => it / 255).map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parts(getComputedStyle(at).backgroundColor));
    const page = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((below, layer) => over(layer, below), page);
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const below = ground(element);
    const [a, b] = [light(over(parts(getComputedStyle(element).color), below)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${node.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return low;
}

async function looksRight(page, name) {
  const low = await page.evaluate(contrasts);
  if (low.length) throw new Error(`${name}: contrasts below 4.5: ${low.join("; ")}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) throw new Error(`${name}: ${wide} px wider than the screen`);
  await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

async function enterKey(page) {
  await page.waitForSelector("#ask[open] #ask-input", { timeout: PATIENCE });
  await page.fill("#ask-input", key);
  await page.press("#ask-input", "Enter");
}

// Figures come, and change.
async function isLive(page) {
  const above = (id) => page.waitForFunction((id) => parseFloat(document.getElementById(id)?.textContent.replaceAll(",", "")) > 0, id, { timeout: PATIENCE });
  for (const id of ["connections-value", "messages-value", "deliveries-value", "latency-value"]) await above(id);
  const before = await page.textContent("#messages-value + small, #messages-value");
  const under = await page.evaluate(() => document.querySelector("#messages-value").closest(".card").querySelector(".under").textContent);
  await page.waitForFunction((under) => document.querySelector("#messages-value").closest(".card").querySelector(".under").textContent !== under, under, { timeout: PATIENCE });
  return before;
}

async function look(browser, width, scheme) {
  const context = await browser.newContext({ viewport: { width, height: width === 390 ? 844 : 900 }, colorScheme: scheme, deviceScaleFactor: width === 390 ? 2 : 1 });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const wrong = [];
  // That a key is asked for is no mistake of the page.
  page.on("console", (line) => line.type() === "error" && !line.text().includes("status of 401") && wrong.push(line.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => request.url().startsWith(base) || wrong.push(`it asks elsewhere: ${request.url()}`));
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (it) => console.error(`policy: ${it.violatedDirective} ${it.blockedURI}`)));
  const name = (what) => `${what}-${width}-${scheme}`;
  await page.goto(base + "/");
  await enterKey(page);
  await isLive(page);
  await looksRight(page, name("overview"));

  await page.click("nav a[href='#/users']");
  await page.fill("#find", user);
  await page.press("#find", "Enter");
  await page.waitForSelector("#kick-all");
  await looksRight(page, name("user"));
  await page.goto(`${base}/#/messages/${message}`);
  await page.waitForSelector(`#result table a[href='#/users/${user}']`);
  await looksRight(page, name("message"));
  await page.goto(`${base}/#/groups/${group}`);
  await page.waitForSelector("#result dl");
  await looksRight(page, name("group"));
  await page.click("nav a[href='#/webhooks']");
  await page.waitForSelector("#result .card");
  await looksRight(page, name("webhooks"));
  await page.click("nav a[href='#/settings']");
  await page.waitForSelector("#result table code");
  await page.fill("#filter", "log.level");
  await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 1);
  await looksRight(page, name("settings"));
  await page.click("nav a[href='#/']");
  await page.waitForFunction(() => document.querySelector("#connections-value")?.textContent !== "–");

  await page.goto(base + "/api/docs");
  await page.waitForSelector("#calls details");
  await page.click("#calls details summary >> nth=0");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) throw new Error(`${name("docs")}: ${wide} px wider than the screen`);
  await page.screenshot({ path: `${shots}/${name("docs")}.png` });
  if (wrong.length) throw new Error(`${width} ${scheme}: ${wrong.join("; ")}`);
  await context.close();
}

// By the keyboard and by clicking alone: from the message to its recipient, whose sessions are ended.
async function kick(browser) {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(base + "/#/messages");
  await enterKey(page);
  await page.fill("#find", message);
  await page.click("form.find button");
  await page.click(`#result table a[href='#/users/${user}']`);
  await page.click("#kick-all");
  await page.waitForSelector("#ask[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#ask:not([open])", { state: "attached" });
  await page.click("#kick-all");
  await page.click("#ask-yes");
  await page.waitForFunction(() => document.querySelector("#result")?.textContent.includes("Kicked") || document.querySelector("#kick-all"));
  for (let tries = 0; tries < 60 && !(await page.textContent("#result")).includes("Kicked"); tries++) {
    await page.click("form.find button");
    await page.waitForSelector("#result:not([aria-busy])");
  }
  await page.getByText("Nobody is logged in as this user.").waitFor();
  await page.getByRole("cell", { name: "Kicked" }).first().waitFor();
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
  try {
    for (const width of [1280, 390]) for (const scheme of ["light", "dark"]) await look(browser, width, scheme);
    await kick(browser);
  } finally {
    await browser.close();
  }
})().then(() => console.log("looked at"), (error) => {
  console.error(error.stack ?? String(error));
  process.exitCode = 1;
});
