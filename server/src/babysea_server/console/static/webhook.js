// Deliveries as they are now: their rows are read again when one was tried, or when there are new ones.

const card = document.querySelector("[data-deliveries]");
const newest = !/[?&](after|q|state|event|sort)=/.test(location.search);
const asked = new Set();
let reading = false;

function isNews(id, attempts) {
    const row = card.querySelector(`[data-row="${CSS.escape(id)}"]`);
    if (row) return parseInt(row.querySelector("[data-label=Attempts]").textContent, 10) !== attempts;
    // Ids are in the order of time; those of other endpoints are asked for once.
    if (!newest || asked.has(id) || id < (card.querySelector("[data-row]")?.dataset.row ?? "")) return false;
    return Boolean(asked.add(id));
}

async function read() {
    const response = await fetch(location.href, { headers: { "X-Dialog": "1" } }); // leaves toasts to whoever looks
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const now = page.querySelector("[data-deliveries]");
    if (!now || card.querySelector("details[open]")) return;
    const [old, rows] = [card.querySelector("tbody"), now.querySelector("tbody")];
    const focused = old?.contains(document.activeElement) && document.activeElement.href;
    if (old && rows) old.replaceWith(document.adoptNode(rows));
    else card.replaceChildren(...document.adoptNode(now).childNodes);
    if (focused) [...card.querySelectorAll("tbody a")].find((link) => link.href === focused)?.focus();
}

document.addEventListener("console:change", ({ detail }) => {
    const news = Object.entries(detail.deliveries ?? {}).filter(([id, [, attempts]]) => isNews(id, attempts));
    if (!news.length || reading) return;
    reading = true;
    read().catch(() => {}).finally(() => { reading = false; });
});
