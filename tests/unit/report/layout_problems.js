// Evaluated in the page by tests/end_to_end/test_report_page.py: everything that is laid out wrongly, as sentences.
() => {
  const SLACK = 1; // CSS pixels, for rounding
  const problems = new Set();
  const width = document.documentElement.clientWidth;
  const told = (text) => JSON.stringify(text.trim().slice(0, 40));
  const remembered = (compute) => {
    const known = new Map();
    return (key) => {
      if (!known.has(key)) known.set(key, compute(key));
      return known.get(key);
    };
  };
  const style = remembered((element) => getComputedStyle(element));
  const clipped = remembered((element) => element !== null && (style(element).clipPath !== "none" || clipped(element.parentElement)));
  const seen = remembered((element) => element.checkVisibility() && !element.closest(".skip, title, script, style") && !clipped(element));
  const blockOf = remembered((element) => (style(element).display.startsWith("inline") ? blockOf(element.parentElement) : element));
  const boxOf = remembered((element) => element.getBoundingClientRect());

  if (document.documentElement.scrollWidth > width) problems.add(`the page is ${document.documentElement.scrollWidth} wide`);

  // words stay inside their block, and in the window, unless a region scrolls by itself
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("svg, .scroll") || !seen(parent)) continue;
    const around = boxOf(blockOf(parent));
    for (const word of node.data.matchAll(/\S+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      for (const r of range.getClientRects()) {
        if (r.left < -SLACK || r.right > width + SLACK) problems.add(`${told(word[0])} leaves the window`);
        if (r.left < around.left - SLACK || r.right > around.right + SLACK) {
          problems.add(`${told(word[0])} leaves its ${blockOf(parent).tagName} by ${Math.round(r.right - around.right)}`);
        }
      }
    }
  }

  // text of drawings stays inside of them and apart from other text
  for (const drawing of document.querySelectorAll("svg:has(text)")) {
    if (!seen(drawing)) continue;
    const around = boxOf(drawing);
    const texts = [...drawing.querySelectorAll("text")];
    texts.forEach((one, place) => {
      const a = boxOf(one);
      if (a.left < around.left - SLACK || a.right > around.right + SLACK || a.top < around.top - SLACK || a.bottom > around.bottom + SLACK) {
        problems.add(`${told(one.textContent)} leaves its drawing`);
      }
      for (const other of texts.slice(place + 1)) {
        const b = boxOf(other);
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > SLACK && down > 3) problems.add(`${told(one.textContent)} and ${told(other.textContent)} overlap`);
      }
    });
  }

  // contrast as WCAG counts it: 4.5 for text, 3 for large text
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const channels = remembered((color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  });
  const linear = (channel) => (channel / 255 <= 0.04045 ? channel / 255 / 12.92 : ((channel / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = remembered((element) => {
    if (!element) return [255, 255, 255];
    const color = channels(style(element).backgroundColor);
    return color[3] === 255 ? color : behind(element.parentElement);
  });
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()) || !seen(element)) continue;
    const { fill, color, fontSize, fontWeight } = style(element);
    const both = [channels(element.closest("svg") ? fill : color), behind(element)].map(luminance);
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    const large = parseFloat(fontSize) >= 24 || (parseFloat(fontSize) >= 18.66 && fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) problems.add(`${told(element.textContent)} has a contrast of ${contrast.toFixed(2)}`);
  }
  return [...problems];
}
