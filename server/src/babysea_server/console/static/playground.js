// The Playground: calls the API from here. The key stays in this page's memory.

const $ = (id) => document.getElementById(id);
const form = $("play-form");
const key = $("f-key");
const page = JSON.parse($("play-data").textContent);
const models = [...$("play-models").children];
const ends = { succeeded: "good", failed: "bad", refused: "bad", "no answer": "bad", canceled: "", deleted: "" };

// ---- the request: the console spells and prices it

const ask = (url, body) => fetch(url, { method: body ? "POST" : "GET", body, redirect: "error" });
const away = () => { $("play-price").textContent = "The console did not answer. Load this page again."; };
let told;
let timer;
async function preview() {
    clearTimeout(timer);
    told = await (await ask(form.action, new URLSearchParams(new FormData(form)))).json();
    $("play-price").textContent = told.text;
    complain(told.field, told.message);
    spell();
}

function spell() {
    for (const [name, text] of Object.entries(told.code)) {
        fill($(`play-${name}`), key.type === "text" && key.value ? text.replaceAll(page.key, key.value) : text);
    }
}

function fill(box, text) {
    const copy = box.querySelector("[data-copy]");
    box.querySelector("pre").textContent = copy.dataset.copy = text;
    copy.hidden = false;
}

function complain(name, message) {
    for (const each of form.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
    for (const each of form.querySelectorAll(".error-text")) each.textContent = "";
    const field = name && $(`f-${name}`);
    if (!field) return;
    field.setAttribute("aria-invalid", "true");
    $(`f-${name}-error`).textContent = message;
    field.closest("details")?.setAttribute("open", "");
    if (sending) field.focus();
}

async function choose(model) {
    const prompt = $("f-generation_prompt")?.value ?? "";
    const fields = await (await ask(model.dataset.fields)).text();
    $("play-list").hidePopover();
    $("play-fields").innerHTML = fields;
    if ($("f-generation_prompt")) $("f-generation_prompt").value = prompt;
    history.replaceState(null, "", model.href);
    await preview();
}

// ---- calls

async function call({ box, part, secret }, method, path, headers, body) {
    const began = Date.now();
    try {
        const response = await fetch(page.origin + path, {
            method, body, headers: { ...headers, Authorization: `Bearer ${secret}` }, credentials: "omit",
        });
        const answer = await response.json();
        part.http.textContent = `${method} ${path}: ${response.status} in ${Date.now() - began} ms`;
        const lines = [...response.headers].filter(([name]) => /^(x-r|retry|idem|server-t)/.test(name)).map((pair) => pair.join(": "));
        fill(box, [...lines, "", JSON.stringify(answer, null, 2)].join("\n"));
        const { error, data = {} } = answer;
        fault(part, error?.code ?? data.generation_error_code, error?.message ?? data.generation_error);
        return { ok: response.ok, wait: response.headers.get("retry-after") * 1000, error, data };
    } catch {
        fault(part, "No answer", "The API could not be reached, or its answer was lost.");
        return {};
    }
}

function fault(part, code, message) {
    part.error.hidden = !code;
    for (const [name, text] of Object.entries({ code, message, remedy: page.remedies[code] })) part[name].textContent = text ?? "";
}

// A request whose answer was lost keeps its Idempotency-Key: sent again, it buys nothing twice.
let lost = {};
let sending = false;
async function send() {
    const secret = key.value.trim();
    if (!/^[!-~]+$/.test(secret)) return complain("key", "Enter an API key of this region.");
    await preview();
    const { path, body } = told;
    if (lost.what !== path + body) lost = { what: path + body, token: `play-${crypto.getRandomValues(new Uint32Array(4)).join("-")}` };
    const entry = begin(secret);
    const got = await call(entry, "POST", path, { "Content-Type": "application/json", "Idempotency-Key": lost.token }, body);
    if (!got.data) return mark(entry, "no answer");
    lost = {};
    if (got.ok) return void follow(entry, got.data.generation_id);
    mark(entry, "refused");
    complain(got.error.details?.field, got.error.message);
}

function begin(secret) {
    const box = $("play-call").content.cloneNode(true).firstElementChild;
    const part = Object.fromEntries([...box.querySelectorAll("[data-part]")].map((each) => [each.dataset.part, each]));
    const began = Date.now();
    const ticking = setInterval(() => { part.elapsed.textContent = `${((Date.now() - began) / 1000).toFixed(1)} s`; }, 100);
    part.model.textContent = form.elements.model.value;
    for (const other of $("play-calls").children) other.open = false;
    $("play-calls").prepend(box);
    return { box, part, secret, price: told.price, ticking };
}

function mark(entry, state) {
    const { part } = entry;
    part.state.textContent = state[0].toUpperCase() + state.slice(1);
    part.state.className = `badge ${ends[state] ?? "info"}`;
    entry.over = part.cancel.hidden = state in ends;
    if (entry.over) clearInterval(entry.ticking);
}

async function follow(entry, id) {
    for (const button of [entry.part.cancel, entry.part.delete]) {
        button.onclick = async () => {
            const got = await call(entry, button.dataset.method, button.dataset.path + id);
            if (got.ok) see(entry, got.data);
        };
    }
    for (let pause = 300; !entry.over; pause = Math.min(pause * 1.4, 5000)) {
        const got = await call(entry, "GET", `/v1/content/${id}`);
        if (entry.over) return;
        if (got.ok) see(entry, got.data);
        else if (got.error && !got.error.retryable) mark(entry, "refused");
        await new Promise((done) => setTimeout(done, got.wait || pause));
    }
}

function see(entry, data) {
    const { part } = entry;
    const state = data.generation_status ?? "deleted";
    mark(entry, state);
    part.delete.hidden = !entry.over || state === "deleted";
    part.facts.textContent = state === "succeeded" ? `${entry.price}, by ${data.generation_provider_used}` : "";
    part.outputs.replaceChildren(...(data.generation_output_file ?? []).map((url) => {
        const figure = $("generation_audio_mode" in data ? "play-video" : "play-image").content.cloneNode(true).firstElementChild;
        const medium = figure.querySelector("img, video");
        medium.alt = medium.ariaLabel = data.generation_prompt ?? "Output";
        medium.src = figure.querySelector("a").href = url;
        return figure;
    }));
}

// ---- what is pressed

form.addEventListener("input", ({ target }) => {
    clearTimeout(timer);
    if (target === key) spell();
    else if (target.name === "media") choose(models.find((model) => model.dataset.id === page.first[target.value])).catch(away);
    else timer = setTimeout(() => preview().catch(away), 250);
});
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (sending) return;
    sending = true;
    await send().catch(away);
    sending = false;
});
$("play-lock").addEventListener("click", ({ currentTarget }) => {
    key.type = key.type === "text" ? "password" : "text";
    currentTarget.setAttribute("aria-pressed", key.type === "text");
    spell();
});
$("play-search").addEventListener("input", ({ target }) => {
    const words = target.value.toLowerCase().split(" ");
    for (const model of models) model.hidden = !words.every((word) => model.textContent.toLowerCase().includes(word));
});
$("play-models").addEventListener("click", (event) => {
    event.preventDefault();
    choose(event.target.closest("a")).catch(away);
});
addEventListener("pagehide", () => { key.value = ""; });
preview().catch(away);
