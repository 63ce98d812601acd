// What makes the console pleasant where there are scripts. Every page works without.

const root = document.documentElement;

// ---------------------------------------------------------------- dialogs: pages shown on top of the one they belong to

let dialog = null;
let opener = null;
let changed = false;

function dialogElement() {
    if (!dialog) {
        dialog = document.createElement("dialog");
        dialog.className = "dialog";
        dialog.setAttribute("aria-labelledby", "dialog-title");
        document.body.append(dialog);
        dialog.addEventListener("close", () => {
            dialog.replaceChildren();
            if (changed) location.reload();
            else opener?.focus();
        });
        dialog.addEventListener("pointerdown", (event) => {
            const box = dialog.getBoundingClientRect();
            const inside = event.clientX >= box.left && event.clientX <= box.right
                && event.clientY >= box.top && event.clientY <= box.bottom;
            if (!inside && !dialog.querySelector("form")) dialog.close();
        });
    }
    return dialog;
}

async function intoDialog(url, options = {}) {
    const response = await fetch(url, {
        ...options, credentials: "same-origin", headers: { ...options.headers, "X-Dialog": "1", Accept: "text/html" },
    });
    const next = response.headers.get("X-Location");
    if (next) {
        changed = true;
        // A page that belongs in a dialog is shown in it, any other one is gone to.
        const path = new URL(next, location.href).pathname;
        if (/\/secret$|\/done$/.test(path)) return intoDialog(next);
        return location.assign(next);
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const body = page.querySelector("[data-dialog-body]");
    if (!body) return location.assign(response.url);
    const element = dialogElement();
    element.replaceChildren(document.adoptNode(body));
    prepare(element);
    if (!element.open) element.showModal();
    const first = element.querySelector("[aria-invalid=true]") ?? element.querySelector("[autofocus]") ?? element.querySelector("h1");
    first?.focus();
    element.dispatchEvent(new CustomEvent("dialog:shown", { bubbles: true }));
}

document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const close = event.target.closest("[data-dialog-close]");
    if (close && dialog?.open && dialog.contains(close)) {
        event.preventDefault();
        return dialog.close();
    }
    const link = event.target.closest("a[data-dialog]");
    if (!link) return;
    event.preventDefault();
    if (!dialog?.open) opener = link.closest("details")?.querySelector("summary") ?? link;
    closeMenus();
    intoDialog(link.href).catch(() => location.assign(link.href));
});

document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sending) return event.preventDefault();
    form.dataset.sending = "1"; // twice pressed is once sent
    setTimeout(() => delete form.dataset.sending, 3000);
    if (!dialog?.open || !dialog.contains(form) || form.method !== "post") return;
    event.preventDefault();
    const data = new FormData(form, event.submitter);
    const body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
    intoDialog(form.action, { method: "POST", body })
        .catch(() => toast("The server could not be reached. Nothing may have been changed.", "danger"))
        .finally(() => delete form.dataset.sending);
});

// ---------------------------------------------------------------- menus

function closeMenus(except) {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
}
document.addEventListener("toggle", (event) => {
    const menu = event.target;
    if (!(menu instanceof HTMLDetailsElement) || !menu.matches(".menu") || !menu.open) return;
    closeMenus(menu);
    if (menu.closest(".table")) place(menu.querySelector("summary"), menu.querySelector(".menu-list"));
}, true);
// In a table the list would be cut off by what scrolls: it gets a place in the window instead.
function place(button, list) {
    list.style.setProperty("position", "fixed");
    const { top, bottom, right } = button.getBoundingClientRect();
    const below = bottom + 6 + list.offsetHeight <= innerHeight;
    list.style.setProperty("inset", `${below ? bottom + 6 : Math.max(8, top - 6 - list.offsetHeight)}px auto auto ${Math.max(8, right - list.offsetWidth)}px`);
}
document.addEventListener("pointerdown", (event) => closeMenus(event.target.closest("details.menu")));
document.addEventListener("scroll", (event) => { if (event.target !== document) closeMenus(); }, true);
document.addEventListener("keydown", (event) => {
    const menu = document.activeElement?.closest("details.menu[open]");
    if (event.key === "Escape") {
        if (menu) {
            menu.open = false;
            menu.querySelector("summary").focus();
        } else if (location.hash === "#sidebar") location.hash = "content";
    }
    if (menu && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
        const items = [...menu.querySelectorAll(".menu-list a, .menu-list button")];
        const step = event.key === "ArrowDown" ? 1 : -1;
        items.at((items.indexOf(document.activeElement) + step + (step < 0 && !items.includes(document.activeElement) ? 1 : 0)) % items.length)?.focus();
        event.preventDefault();
    }
});

// ---------------------------------------------------------------- copying

async function copy(button) {
    const label = button.querySelector("[data-copy-label]");
    const before = button.dataset.label ??= label.textContent;
    try {
        await navigator.clipboard.writeText(button.dataset.copy);
        label.textContent = "Copied";
    } catch {
        const area = document.createElement("textarea"); // plain http has no clipboard of its own
        area.value = button.dataset.copy;
        (dialog?.open ? dialog : document.body).append(area);
        area.select();
        label.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
        area.remove();
        button.focus();
    }
    setTimeout(() => { label.textContent = before; }, 2000);
}
document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
});

// ---------------------------------------------------------------- toasts, theme, filters, times

export function toast(text, kind = "info") {
    const box = document.createElement("div");
    box.className = `toast ${kind}`;
    const line = document.createElement("p");
    line.dir = "auto";
    line.textContent = text;
    box.append(line);
    document.querySelector("[data-toasts]")?.append(box);
    setTimeout(() => box.remove(), 6000);
}
for (const box of document.querySelectorAll("[data-toasts] .toast")) setTimeout(() => box.remove(), 6000);

document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-theme-form]")) return;
    event.preventDefault();
    const theme = event.submitter?.value ?? "auto";
    root.dataset.theme = theme;
    fetch(event.target.action, { method: "POST", body: new URLSearchParams({ theme, next: "/console" }), redirect: "manual" });
    for (const button of event.target.querySelectorAll("button")) button.toggleAttribute("aria-pressed", button.value === theme);
    closeMenus();
    delete event.target.dataset.sending;
});

document.addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
function tellTimes(within = document) {
    for (const time of within.querySelectorAll("time[datetime]")) {
        const moment = new Date(time.dateTime);
        if (!("relative" in time.dataset)) {
            time.title ||= moment.toLocaleString();
            continue;
        }
        const seconds = (moment - Date.now()) / 1000;
        if (Math.abs(seconds) < 10) { time.textContent = "just now"; continue; }
        const [unit, length] = units.find(([, length]) => Math.abs(seconds) >= length) ?? units.at(-1);
        time.textContent = relative.format(Math.trunc(seconds / length), unit);
    }
}
setInterval(tellTimes, 30000);

function prepare(within = document) {
    for (const button of within.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
    tellTimes(within);
}
prepare();

// ---------------------------------------------------------------- live: what changes on the server changes here

const data = JSON.parse(document.getElementById("page-data")?.textContent ?? "null");
const tones = { pending: "info", processing: "info", succeeded: "good", failed: "bad", delivered: "good", expired: "warn" };

function badge(key, value) {
    for (const element of document.querySelectorAll(`[data-live="${CSS.escape(key)}"]`)) {
        if (element.textContent.toLowerCase() === value) continue;
        element.textContent = value[0].toUpperCase() + value.slice(1);
        element.className = `badge ${tones[value] ?? ""}`;
    }
}

export function dollars(micros) {
    const [whole, rest] = (Math.abs(micros) / 1e6).toFixed(3).split(".");
    return `${micros < 0 ? "-" : ""}$${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${rest}`;
}

function show(change) {
    if ("balance" in change) for (const e of document.querySelectorAll('[data-live="balance"]')) e.textContent = dollars(change.balance);
    if ("unread" in change) {
        for (const e of document.querySelectorAll('[data-live="unread"]')) {
            e.textContent = change.unread;
            e.hidden = !change.unread;
        }
    }
    for (const [id, status] of Object.entries(change.generations ?? {})) badge(`generation:${id}`, status);
    for (const [id, [state]] of Object.entries(change.deliveries ?? {})) badge(`delivery:${id}`, state);
    // Pages with more to do hear it, too: addEventListener("console:change", ...).
    document.dispatchEvent(new CustomEvent("console:change", { detail: change }));
}

let source = null;
function listen() {
    if (!data?.events || source) return;
    source = new EventSource(data.events);
    source.addEventListener("change", (event) => show(JSON.parse(event.data)));
}
function stop() { source?.close(); source = null; }
document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
addEventListener("pagehide", stop);
addEventListener("pageshow", listen);
