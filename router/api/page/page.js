// The page at `/`: the state of the pools, read from /ready and /metrics, and a playground for the API.

const UPDATE_MILLISECONDS = 2000;
const HELP = {
  similarity: "The cosine of every input with every other. Each input may have its own task.",
  tokens: "How well each token of the first input matches each token of the second. The best match of each row counts.",
  rerank: "The first input is the query. The others are ranked by how well they answer it.",
};
const EXAMPLES = [
  ["Where is the nearest lighthouse?", "retrieval.query"],
  ["The lighthouse stands on the northern cape.", "retrieval.passage"],
  ["Bread is baked before dawn.", "retrieval.passage"],
];

const $ = (id) => document.getElementById(id);

function element(name, content = "", className = "") {
  const made = document.createElement(name);
  made.className = className;
  made.append(content);
  return made;
}

// ---- the API

class ApiError extends Error {
  constructor(status, reply) {
    super(reply.detail ?? `status ${status}`);
    this.status = status;
    this.reply = reply;
  }
}

async function call(path, body) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  return fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
}

async function post(path, body) {
  const reply = await call(path, body);
  const content = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new ApiError(reply.status, content);
  return content;
}

// ---- the pools

/** The samples of a Prometheus page: [{name, labels, value}]. */
function samples(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    found.push({ name: match[1].replace("triptych_router_", ""), labels, value: Number(match[3]) });
  }
  return found;
}

function sum(all, name, labels) {
  return all
    .filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value))
    .reduce((total, one) => total + one.value, 0);
}

let previous = null;
let firstErrors = null;
let knownPools = null;

async function update() {
  const [ready, page] = await Promise.all([call("ready"), call("metrics")]);
  if (ready.status === 401) {
    setState("Enter an API key", "bad");
    return;
  }
  const status = await ready.json();
  const now = { time: performance.now(), samples: samples(await page.text()) };
  const waits = Object.values(status.pools).filter((text) => text !== "ready").length;
  setState(status.ready ? "Ready" : (status.reason ?? `${waits} of ${Object.keys(status.pools).length} pools not ready`),
    status.ready ? "good" : "bad");
  showPools(status, now);
  const pools = Object.keys(status.pools).join();
  if (pools !== knownPools) {
    await updateModels();
    knownPools = pools;
  }
  showErrors(now);
  previous = now;
}

function setState(text, className) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = className;
}

function rate(now, name, labels) {
  if (!previous) return "";
  const seconds = (now.time - previous.time) / 1000;
  return Math.max(0, (sum(now.samples, name, labels) - sum(previous.samples, name, labels)) / seconds).toFixed(0);
}

function showPools(status, now) {
  const rows = [];
  for (const [pool, state] of Object.entries(status.pools)) {
    const waiting = ["interactive", "bulk"].map((name) => sum(now.samples, "queue_items", { pool, class: name }));
    rows.push(row("pool", [pool, state, `${waiting[0]} + ${waiting[1]} bulk`,
      sum(now.samples, "replica_batches_in_flight", { pool }), rate(now, "items_total", { pool }),
      rate(now, "tokens_total", { pool }), (status.vector_spaces[pool] ?? []).join(" and ")]));
    const replicas = new Set(now.samples.filter((one) => one.labels.pool === pool && one.labels.replica)
      .map((one) => one.labels.replica));
    for (const replica of replicas) rows.push(row("replica", [replica, replicaState(now, replica),
      "", lanes(now, replica), "", "", ""]));
  }
  document.querySelector("#pools tbody").replaceChildren(...rows);
}

/** What most router processes see, and what is unusual. */
function replicaState(now, replica) {
  const seen = now.samples.filter((one) => one.name === "replica_state" && one.labels.replica === replica);
  const state = seen.reduce((best, one) => (one.value > best.value ? one : best)).labels.state;
  const notes = [state];
  if (sum(now.samples, "replica_breaker", { replica, state: "open" })) notes.push("breaker open");
  if (sum(now.samples, "replica_slow", { replica })) notes.push("slow");
  return notes.join(", ");
}

function lanes(now, replica) {
  const used = sum(now.samples, "replica_batches_in_flight", { replica });
  return `${used} of ${sum(now.samples, "replica_lanes", { replica })}`;
}

function row(className, cells) {
  const made = element("tr", "", className);
  cells.forEach((text, index) => {
    const cell = element(index ? "td" : "th", String(text));
    if (!index) cell.scope = "row";
    if (index === 1) cell.className = text === "ready" ? "good" : "bad";
    made.append(cell);
  });
  return made;
}

function showErrors(now) {
  const counts = new Map(now.samples.filter((one) => one.name === "rejections_total")
    .map((one) => [one.labels.reason, one.value]));
  firstErrors ??= counts;
  const since = [...counts].map(([reason, count]) => [reason, count - (firstErrors.get(reason) ?? 0)])
    .filter(([, count]) => count > 0);
  $("error-count").textContent = since.reduce((total, [, count]) => total + count, 0);
  $("errors").replaceChildren(...since.map(([reason, count]) => element("li", `${reason}: ${count}`)));
}

async function keepUpdating() {
  for (;;) {
    if (!document.hidden) {
      try {
        await update();
      } catch {
        setState("The router does not answer", "bad");
        previous = null;
      }
    }
    await new Promise((resume) => setTimeout(resume, UPDATE_MILLISECONDS));
  }
}

// ---- the models of the playground

/** The models that embed, as /v1/models lists them. */
let models = [];

async function updateModels() {
  const { data } = await (await call("v1/models")).json();
  models = data.filter((one) => one.matryoshka_dimensions.length);
  const chosen = $("model").value;
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id, false, id === chosen)));
  showModel();
}

function chosenModel() {
  return models.find(({ id }) => id === $("model").value);
}

function showModel() {
  const dimensions = chosenModel()?.dimensions ?? "";
  $("dimensions").max = $("dimensions").placeholder = dimensions;
  for (const select of $("inputs").querySelectorAll("select")) fillTasks(select, select.value);
  showMode();
}

function fillTasks(select, task) {
  // The empty one is a request without a task: the model's default, or its base alone.
  const tasks = [...(chosenModel()?.tasks ?? [task]), ""];
  select.replaceChildren(...tasks.map((name) => new Option(name || "no task", name, false, name === task)));
}

/** The body of a request to the chosen model; where there is only one it needs no name. */
function embedding(items) {
  return models.length > 1 ? { model: $("model").value, input: items } : { input: items };
}

// ---- the inputs of the playground

function addInput(content, task) {
  const item = $("input-row").content.firstElementChild.cloneNode(true);
  item.querySelector(".content").append(content);
  fillTasks(item.querySelector("select"), task);
  item.querySelector(".remove").addEventListener("click", () => {
    item.remove();
    label();
  });
  $("inputs").append(item);
  label();
  return item;
}

function addText(text = "", task = "retrieval.passage") {
  const area = element("textarea");
  area.value = text;
  area.rows = 1;
  return addInput(area, task);
}

async function addImage(file) {
  const image = element("img");
  image.src = await new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(file);
  });
  image.alt = file.name;
  addInput(image, "retrieval.passage");
}

/** Gives every control a name for screen readers, by its position. */
function label() {
  [...$("inputs").children].forEach((item, index) => {
    item.querySelector("textarea")?.setAttribute("aria-label", `Text ${index + 1}`);
    item.querySelector("select").setAttribute("aria-label", `Task of input ${index + 1}`);
    item.querySelector(".remove").setAttribute("aria-label", `Remove input ${index + 1}`);
  });
}

/** The inputs as items of the API, each with a short name. */
function inputs() {
  return [...$("inputs").children].map((item) => {
    const image = item.querySelector("img");
    const content = image ? { image: image.src } : { text: item.querySelector("textarea").value };
    return { item: { ...content, task: item.querySelector("select").value || undefined }, name: image ? image.alt : content.text };
  });
}

function mode() {
  return document.querySelector("[name=mode]:checked").value;
}

function showMode() {
  $("help").textContent = HELP[mode()];
  $("dimensions-field").hidden = mode() !== "similarity";
  $("model-field").hidden = models.length < 2 || mode() === "rerank";
  for (const item of $("inputs").children) item.querySelector("label").hidden = mode() === "rerank";
}

// ---- what it shows

const RUNS = { similarity, tokens, rerank };

async function similarity(all) {
  const body = embedding(all.map((one) => one.item));
  if ($("dimensions").value) body.dimensions = Number($("dimensions").value);
  showCode("v1/embeddings", body);
  const { data, usage } = await post("v1/embeddings", body);
  const vectors = data.map((entry) => entry.embedding);
  const cosines = vectors.map((one) => vectors.map((other) => dot(one, other)));
  const names = all.map((one) => one.name);
  return heatMap(`Cosines; ${usage.total_tokens} tokens, ${vectors[0].length} dimensions`, names, names, cosines);
}

async function tokens(all) {
  if (all.length < 2) throw new ApiError(0, { detail: "Late interaction compares two inputs." });
  const body = { ...embedding(all.slice(0, 2).map((one) => one.item)), return_multivector: true };
  if (all.slice(0, 2).every((one) => one.item.text !== undefined)) body.return_tokenized_input = true;
  showCode("v1/embeddings", body);
  const { data: [one, other] } = await post("v1/embeddings", body);
  const cosines = one.embeddings.map((left) => other.embeddings.map((right) => dot(left, right)));
  const best = cosines.map((row) => row.indexOf(Math.max(...row)));
  const score = cosines.reduce((total, row, index) => total + row[best[index]], 0);
  const names = [one, other].map((entry) => entry.tokenized_input ?? entry.embeddings.map((_, index) => `${index + 1}`));
  return heatMap(`Cosines of tokens; the best matches add up to ${score.toFixed(3)}`, names[0], names[1], cosines, best);
}

async function rerank(all) {
  if (all.length < 2) throw new ApiError(0, { detail: "Rerank needs a query and at least one document." });
  const items = all.map(({ item: { task, ...content } }) => content);
  const body = { query: items[0], documents: items.slice(1), return_documents: false };
  showCode("v1/rerank", body);
  const { results } = await post("v1/rerank", body);
  const highest = Math.max(...results.map((one) => one.relevance_score), 1e-9);
  const list = element("ol", "", "ranking");
  for (const { index, relevance_score: score } of results) {
    const meter = element("meter");
    meter.value = Math.max(0, score / highest);
    meter.setAttribute("aria-label", `score ${score.toFixed(3)}`);
    const entry = element("li", all[index + 1].name);
    entry.append(element("br"), meter, ` ${score.toFixed(3)}`);
    list.append(entry);
  }
  return list;
}

function dot(one, other) {
  return one.reduce((total, value, index) => total + value * other[index], 0);
}

/** A table whose cells are coloured from its lowest to its highest value; `best` marks a column of each row. */
function heatMap(title, rows, columns, values, best = []) {
  const flat = values.flat();
  const lowest = Math.min(...flat);
  const range = Math.max(...flat) - lowest || 1;
  const head = element("tr", element("td"));
  columns.forEach((name) => head.append(header("col", name)));
  const body = rows.map((name, number) => {
    const line = element("tr", header("row", name));
    values[number].forEach((value, column) => {
      const heat = (value - lowest) / range;
      const cell = element("td", value.toFixed(2), heat > 0.6 ? "dark" : "");
      cell.style.setProperty("--heat", `${Math.round(heat * 100)}%`);
      if (best[number] === column) cell.classList.add("best");
      line.append(cell);
    });
    return line;
  });
  const table = element("table", element("caption", title), "matrix");
  table.append(head, ...body);
  return element("div", table, "scroll");
}

function header(scope, name) {
  const cell = element("th", name);
  cell.scope = scope;
  cell.title = name;
  return cell;
}

function showProblem(error) {
  const box = element("div", "", "error");
  if (error instanceof ApiError) {
    const { code, request_id: id, errors = [] } = error.reply;
    box.append(element("p", error.message + (code ? ` (${error.status} ${code}, request ${id})` : "")));
    const list = element("ul");
    list.append(...errors.map((one) => element("li", `${one.field}: ${one.message}`)));
    box.append(list);
  } else {
    box.append(element("p", `The router does not answer: ${error.message}`));
  }
  $("problem").replaceChildren(box);
}

async function run(event) {
  event.preventDefault();
  $("go").disabled = true;
  $("problem").replaceChildren();
  try {
    $("result").replaceChildren(await RUNS[mode()](inputs()));
  } catch (error) {
    $("result").replaceChildren();
    showProblem(error);
  } finally {
    $("go").disabled = false;
  }
}

// ---- the same in code

/** Images are shortened: they are megabytes of base64. */
function shortened(value) {
  return JSON.stringify(value, (key, one) => (key === "image" ? `${one.slice(0, 30)}...` : one), 2);
}

function showCode(path, body) {
  const url = new URL(path, document.baseURI);
  const key = sessionStorage.getItem("key") ? ` \\\n  -H "Authorization: Bearer $TRIPTYCH_API_KEY"` : "";
  const json = shortened(body);
  $("curl").textContent = `curl ${url}${key} \\\n  -H 'Content-Type: application/json' -d @- <<'END'\n${json}\nEND`;
  const base = new URL(".", document.baseURI).href.replace(/\/$/, "");
  const secret = key ? `, os.environ["TRIPTYCH_API_KEY"]` : "";
  // JSON of texts and objects alone is Python too.
  const given = Object.entries(body).filter(([name]) => ["input", "query", "documents"].includes(name));
  const lines = given.map(([name, value]) => `${name} = ${shortened(value)}`).join("\n");
  $("python").textContent = `${key ? "import os\n\n" : ""}from triptych.router.client import Client\n\n${lines}\n`
    + `with Client("${base}"${secret}) as client:\n    ${clientCall(path, body)}`;
}

function clientCall(path, body) {
  if (path === "v1/rerank") return "ranked = client.rerank(query, documents)";
  const options = (body.model ? `, model="${body.model}"` : "") + (body.dimensions ? `, dimensions=${body.dimensions}` : "");
  return body.return_multivector ? `matrices = client.embed_multi(input${options})` : `vectors = client.embed(input${options})`;
}

// ---- start

$("key").value = sessionStorage.getItem("key") ?? "";
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  update().catch(() => setState("The router does not answer", "bad"));
});
$("run").addEventListener("submit", run);
$("run").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("run").requestSubmit();
});
$("add-text").addEventListener("click", () => addText().querySelector("textarea").focus());
$("add-image").addEventListener("change", async (event) => {
  for (const file of event.target.files) await addImage(file);
  event.target.value = "";
});
$("model").addEventListener("change", showModel);
document.querySelectorAll("[name=mode]").forEach((radio) => radio.addEventListener("change", showMode));
EXAMPLES.forEach(([text, task]) => addText(text, task));
showMode();
keepUpdating();
