() => {
    // What can be told of a page without knowing it. Returns sentences; none is good.
    const problems = [];
    const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const scope = document.querySelector("dialog[open]") ?? document.body;
    const where = (element) => element.outerHTML.slice(0, 120);

    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) problems.push(`id ${id} is there twice`);

    if (document.querySelectorAll("h1").length !== 1 && !document.querySelector("dialog[open]")) problems.push("a page has one h1");
    if (document.documentElement.scrollWidth > innerWidth + 1) problems.push(`the page is ${document.documentElement.scrollWidth} wide`);

    const name = (element) => (element.getAttribute("aria-label")
        || (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim()
        || element.textContent.trim() || element.querySelector("[aria-label]")?.getAttribute("aria-label") || element.title || "");
    for (const element of scope.querySelectorAll("a[href], button, summary")) {
        if (shown(element) && element.getAttribute("aria-hidden") !== "true" && !name(element)) problems.push(`no name: ${where(element)}`);
    }
    for (const element of scope.querySelectorAll("input:not([type=hidden]), select, textarea")) {
        if (shown(element) && !element.labels?.length && !element.getAttribute("aria-label")) problems.push(`no label: ${where(element)}`);
        for (const id of (element.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean)) {
            if (!document.getElementById(id)) problems.push(`described by nothing: ${where(element)}`);
        }
    }
    for (const element of scope.querySelectorAll("img, svg[role=img]")) {
        if (shown(element) && !element.hasAttribute("alt") && !element.getAttribute("aria-label") && !element.querySelector("title")) problems.push(`no text: ${where(element)}`);
    }
    for (const table of scope.querySelectorAll("table")) if (!table.caption) problems.push(`no caption: ${where(table)}`);

    // Contrast (WCAG 2.2, 1.4.3), of text on what is painted behind it.
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (rgb) => {
        const [r, g, b] = rgb.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const style = getComputedStyle(each);
            if (style.backgroundImage.includes("gradient")) return null;
            const colour = rgba(style.backgroundColor);
            if (colour[3] > 240) return colour.slice(0, 3);
        }
        return [255, 255, 255];
    };
    const seen = new Set();
    const walker = document.createTreeWalker(scope, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || seen.has(element) || !shown(element) || element.closest(".hidden, [disabled], script, title, desc")) continue;
        seen.add(element);
        const style = getComputedStyle(element);
        const back = behind(element);
        if (!back) continue;
        const front = rgba(element.closest("svg.chart") ? style.fill : style.color).slice(0, 3);
        const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
        const size = parseFloat(style.fontSize);
        const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
        const ratio = (light + 0.05) / (dark + 0.05);
        if (ratio < needed - 0.01) problems.push(`contrast ${ratio.toFixed(2)}: ${where(element)}`);
    }
    return problems;
}
