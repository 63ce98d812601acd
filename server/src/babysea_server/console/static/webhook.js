// Deliveries as they are now: their rows are read again when one was tried, or when there are new ones.

const card = document.querySelector("[data-deliveries]");
const newest = !/[?&](after|q|state|event|sort)=/.test(location.search);
let reading = false;
let last = card.querySelector("[data-row]")?.dataset.row ?? "";

function isNews([id, [, attempts]]) {
    const row = card.querySelector(`[data-row="${id}"]`);
    if (row) return parseInt(row.querySelector("[data-label=Attempts]").textContent) !== attempts;
    if (!newest || id <= last) return false; // ids are in the order of time
    last = id; // of another endpoint, perhaps: asked for once
    return true;
}

async function read() {
    const response = await fetch(location.href, { headers: { "X-Dialog": "1" } }); // leaves toasts to whoever looks
    const now = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[data-deliveries]");
    const table = card.querySelector("tbody");
    if (card.querySelector("details[open]") || table?.contains(document.activeElement)) return;
    if (table) table.replaceWith(now.querySelector("tbody"));
    else card.replaceChildren(...now.childNodes);
}

document.addEventListener("console:change", ({ detail }) => {
    if (reading || !Object.entries(detail.deliveries ?? {}).filter(isNews).length) return;
    reading = true;
    read().catch(() => {}).finally(() => { reading = false; });
});
