// Runs in every document before its own scripts. Says what the page shows, and finds what an action means.
//
// Elements get a number, their bid, when they are first shown; it is never given again within an episode.
// Attributes are read by getAttribute only: a form's field called `id` or `title` hides the property.
(options) => {
  "use strict";
  if (window.__agentrl) return;

  // What a page finds changed

  const upper = (() => {
    try { return window.top !== window && window.top.__agentrl || null; } catch { return null; }
  })();
  const hot = upper ? upper.hot : new WeakSet();
  const CLICKS = new Set(["click", "mousedown", "mouseup", "pointerdown", "pointerup", "dblclick", "dragstart", "mouseover", "mouseenter"]);
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...rest) {
    if (CLICKS.has(type) && this instanceof Element) hot.add(this);
    return listen.call(this, type, ...rest);
  };

  const refused = upper ? upper.refused : [];
  const refuse = (what) => { refused.push(String(what).slice(0, 200)); };
  window.open = (url) => { refuse("a new window " + (url || "")); return null; };
  window.print = () => refuse("printing");
  for (const name of ["Worker", "SharedWorker", "RTCPeerConnection", "webkitRTCPeerConnection", "WebTransport"]) delete window[name];
  listen.call(window, "click", (event) => {
    const link = event.target instanceof Element && event.target.closest("a[target], area[target]");
    if (link && !["", "_self", "_top", "_parent"].includes(link.getAttribute("target"))) {
      refuse("a new window " + link.href);
      event.preventDefault();
    }
  }, true);

  let seed = (options.seed ^ 0x9e3779b9) >>> 0;
  const random = Math.random = () => { // mulberry32
    seed = (seed + 0x6d2b79f5) >>> 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  const draw = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(random() * 256);
    return array;
  };
  Crypto.prototype.getRandomValues = draw;
  if (Crypto.prototype.randomUUID) Crypto.prototype.randomUUID = () => { // only where an origin is trusted
    const bytes = draw(new Uint8Array(16));
    bytes[6] = bytes[6] & 15 | 64;
    bytes[8] = bytes[8] & 63 | 128;
    const hex = [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };

  // The episode begins when it should; the page's virtual time may be later, as it has been played in before.
  if (options.late) {
    const present = Date.now;
    const now = () => present() - options.late;
    window.Date = new Proxy(Date, {
      construct: (date, given, target) => Reflect.construct(date, given.length ? given : [now()], target === window.Date ? date : target),
      apply: (date) => new date(now()).toString(),
      get: (date, key) => (key === "now" ? now : date[key]),
    });
    Date.prototype.constructor = Date;
  }

  if (options.virtual) {
    // Frames come when the machine has time for them; timers come when virtual time says so.
    const began = Date.now();
    const now = () => Date.now() - began;
    Performance.prototype.now = now;
    window.requestAnimationFrame = (callback) => setTimeout(() => callback(now()), 16);
    window.cancelAnimationFrame = (handle) => clearTimeout(handle);
    window.requestIdleCallback = (callback) => setTimeout(() => callback({ didTimeout: false, timeRemaining: () => 10 }), 16);
    window.cancelIdleCallback = (handle) => clearTimeout(handle);
  }

  // The browser's clipboard is one for all episodes; this one is the document's own.
  let clip = "";

  // Bids

  let next = 1;
  const bids = new WeakMap();
  const elements = new Map();
  const bidOf = (e) => {
    if (!bids.has(e)) {
      bids.set(e, String(next));
      elements.set(String(next++), new WeakRef(e));
    }
    return bids.get(e);
  };

  // Roles, names and states

  const ROLES = {
    A: "link", AREA: "link", BUTTON: "button", TEXTAREA: "textbox", SELECT: "combobox", IMG: "img", SUMMARY: "DisclosureTriangle",
    H1: "heading", H2: "heading", H3: "heading", H4: "heading", H5: "heading", H6: "heading", LI: "listitem", TABLE: "table",
    TR: "row", TD: "cell", TH: "columnheader", LABEL: "LabelText", NAV: "navigation", DIALOG: "dialog", IFRAME: "Iframe",
    CANVAS: "Canvas", PROGRESS: "progressbar", METER: "meter", FIELDSET: "group", OUTPUT: "status",
  };
  const INPUTS = {
    button: "button", submit: "button", reset: "button", image: "button", checkbox: "checkbox", radio: "radio", range: "slider",
    number: "spinbutton", search: "searchbox", date: "Date", time: "InputTime", "datetime-local": "DateTime", month: "Month",
    week: "Week", color: "ColorWell", file: "file",
  };
  const SHAPES = new Set(["circle", "rect", "ellipse", "polygon", "polyline", "path", "line", "text", "image", "use"]);
  const INTERACTIVE = new Set([
    "link", "button", "textbox", "combobox", "checkbox", "radio", "slider", "spinbutton", "searchbox", "menuitem", "menuitemcheckbox",
    "menuitemradio", "tab", "switch", "option", "treeitem", "gridcell", "Date", "InputTime", "DateTime", "Month", "Week", "ColorWell",
    "DisclosureTriangle",
  ]);
  const UNTYPED = new Set(["button", "checkbox", "radio", "file"]);
  const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "DATALIST"]);
  const CONTROLS = "a[href], button, input, select, textarea, [role], [onclick], [tabindex]";
  const STATES = ["expanded", "selected", "pressed", "invalid", "checked", "current", "haspopup", "disabled", "valuenow"];

  const tidy = (text) => text.replace(/\s+/g, " ").trim();
  const quote = (text) => "'" + tidy(String(text)).replace(/\\/g, "\\\\").replace(/'/g, "\\'") + "'";
  const get = (e, name) => Element.prototype.getAttribute.call(e, name);
  const getter = (kind, name) => { const own = Object.getOwnPropertyDescriptor(kind.prototype, name).get; return (e) => own.call(e); };
  const [nodeType, childNodes, parentOf] = ["nodeType", "childNodes", "parentElement"].map((name) => getter(Node, name));
  const tagOf = getter(Element, "tagName");
  const type = (e) => (get(e, "type") || "text").toLowerCase();
  const isShape = (e) => e instanceof SVGElement && SHAPES.has(e.localName);

  function role(e) {
    const given = get(e, "role");
    if (given) return given === "presentation" || given === "none" ? "" : given;
    if (e.tagName === "INPUT") return INPUTS[type(e)] || "textbox";
    if (e.tagName === "A" && get(e, "href") === null) return "";
    if (isShape(e)) return e.localName;
    return ROLES[e.tagName] || "";
  }

  function label(e) {
    const own = get(e, "aria-label");
    if (own) return own;
    const by = get(e, "aria-labelledby");
    if (by) return by.split(/\s+/).map((id) => (e.ownerDocument.getElementById(id) || {}).textContent || "").join(" ");
    if (e.tagName === "INPUT" && ["submit", "button", "reset"].includes(type(e))) return e.value || type(e);
    if (e.labels && e.labels.length) return [...e.labels].map(textOf).join(" ");
    return get(e, "alt") || get(e, "placeholder") || get(e, "title") || "";
  }

  const textOf = (e) => { // without the options and values that a label may wrap
    const copy = e.cloneNode(true);
    copy.querySelectorAll("select, textarea, script, style").forEach((each) => each.remove());
    return copy.textContent;
  };

  function isClickable(e, r) {
    if (e === e.ownerDocument.body || e === e.ownerDocument.documentElement) return false;
    if (INTERACTIVE.has(r) || hot.has(e) || e.onclick != null || e.onmousedown != null || e.onpointerdown != null) return true;
    if (e.isContentEditable) return !e.parentElement.isContentEditable;
    if (e.tagName === "LABEL" && e.control || get(e, "draggable") === "true") return true;
    const tabindex = get(e, "tabindex");
    return tabindex !== null && Number(tabindex) >= 0;
  }

  function states(e, r) {
    const found = [];
    if (e.tagName === "INPUT" || e.tagName === "TEXTAREA") {
      if (r === "checkbox" || r === "radio") found.push(`checked='${e.checked}'`);
      else if (!UNTYPED.has(r)) found.push("value=" + quote(type(e) === "password" ? "•".repeat(e.value.length) : e.value));
    }
    if (e.tagName === "SELECT") found.push("value=" + quote([...e.selectedOptions].map((o) => o.text).join(", ")));
    if (isShape(e)) for (const name of ["fill", "stroke"]) if (get(e, name)) found.push(`${name}=${quote(get(e, name))}`);
    if (r === "progressbar" && e.value !== undefined) found.push(`value='${e.value}'`);
    if (e.disabled === true || e.matches(":disabled")) found.push("disabled=True");
    if (e.readOnly === true) found.push("readonly");
    if (e.required === true) found.push("required");
    if (e === focused(e.ownerDocument) && e !== e.ownerDocument.body) found.push("focused");
    if (e.isContentEditable && r !== "") found.push("editable");
    for (const name of STATES) {
      const value = get(e, "aria-" + name);
      if (value !== null) found.push(`${name}=${quote(value)}`);
    }
    return found;
  }

  // Snapshots

  const isVisible = (e) => Element.prototype.checkVisibility.call(e, { visibilityProperty: true, opacityProperty: false });
  const isShown = (e) => get(e, "aria-hidden") !== "true" && isVisible(e);

  function childrenOf(e) {
    if (e.tagName === "IFRAME") {
      try { return e.contentDocument && e.contentDocument.body ? [...e.contentDocument.body.childNodes] : []; } catch { return []; }
    }
    if (e.tagName === "SLOT") { const assigned = e.assignedNodes(); if (assigned.length) return assigned; }
    return e.shadowRoot ? [...e.shadowRoot.childNodes] : [...e.childNodes];
  }

  function optionLines(select) {
    return [...select.options].map((o) => {
      const value = o.value === o.text ? "" : `, value=${quote(o.value)}`;
      const off = o.disabled ? ", disabled=True" : "";
      return { depth: 0, text: `option ${quote(o.text)}${value}, selected=${o.selected ? "True" : "False"}${off}` };
    });
  }

  // A label's text is shown as the name of its control, where that is shown.
  const isCaption = (e) => e.tagName === "LABEL" && e.control !== null && isShown(e.control);

  function colour(e) { // of what has nothing else to be told by
    const found = getComputedStyle(e).backgroundColor;
    return found === "rgba(0, 0, 0, 0)" ? [] : [`color=${quote(found)}`];
  }

  // Returns lines: {depth, text, plain}; `plain` is the text of a line that is nothing but text.
  function lines(node, offered) {
    if (nodeType(node) === 3) {
      const text = tidy(node.nodeValue);
      return text ? [{ depth: 0, text: "StaticText " + quote(text), plain: text }] : [];
    }
    if (nodeType(node) !== 1 || SKIPPED.has(tagOf(node)) || !isShown(node)) return [];
    if (tagOf(node) === "FORM") return [...childNodes(node)].flatMap((child) => lines(child, false));
    const r = role(node);
    const clickable = isClickable(node, r) || offered && (tidy(node.textContent) !== "" || isShape(node));
    const bid = clickable && !isCaption(node) ? bidOf(node) : "";
    const spread = hot.has(node) && node.childElementCount > 1 && !node.querySelector(CONTROLS);
    let below = node.tagName === "SELECT" ? optionLines(node) : node.tagName === "TEXTAREA" ? [] :
      childrenOf(node).flatMap((child) => lines(child, spread && nodeType(child) === 1));
    if (isCaption(node)) return below.filter((line) => line.plain === undefined);
    if (!r && !clickable) return below;
    let name = tidy(label(node));
    if (below.length && below.every((line) => line.plain !== undefined)) {
      const text = below.map((line) => line.plain).join(" ");
      if (!name || name === text) { name = text; below = []; }
    }
    if (r === "LabelText" && !name && below.length === 0) return [];
    if (r === "img" && !name && !clickable) return [];
    const blank = clickable && !name && below.length === 0 && (!r || r === "button" || r === "cell");
    const parts = [`${bid ? `[${bid}] ` : ""}${r || "clickable"} ${quote(name)}`, ...states(node, r)];
    if (blank) parts.push(...colour(node));
    const line = { depth: 0, text: parts.join(", ") };
    for (const each of below) each.depth += 1;
    return [line, ...below];
  }

  function cut(all, characters) {
    let length = 0;
    for (let i = 0; i < all.length; i++) {
      length += all[i].length + 1;
      if (length > characters) return [...all.slice(0, i), `... (${all.length - i} more lines)`];
    }
    return all;
  }

  // What has the focus, also within a shadow root, whose host the document names.
  function focused(doc) {
    let e = doc.activeElement;
    while (e && e.shadowRoot && e.shadowRoot.activeElement) e = e.shadowRoot.activeElement;
    return e;
  }

  // All that the future of a document may depend on, with the frames that it can look into.
  function state(doc) {
    return [doc.location.href, doc.documentElement?.outerHTML, stateOf(doc)];
  }

  function stateOf(root) { // of a document or a shadow root
    const all = [...root.querySelectorAll("*")];
    const fields = [...root.querySelectorAll("input, textarea, select")].map((e) =>
      [e.value, e.checked, e.selectedOptions && [...e.selectedOptions].map((option) => option.index)]);
    const scrolled = all.filter((e) => e.scrollTop || e.scrollLeft).map((e) => [e.tagName, e.scrollTop, e.scrollLeft]);
    const frames = [...root.querySelectorAll("iframe, frame")].map((e) => e.contentDocument).filter(Boolean).map(state);
    const shadows = all.map((e) => e.shadowRoot).filter(Boolean).map((each) => [each.innerHTML, stateOf(each)]);
    return [fields, scrolled, all.indexOf(root.activeElement), frames, shadows];
  }

  function digest() { // cyrb53 over what the text may leave out
    const text = JSON.stringify([state(document), clip]);
    let a = 0xdeadbeef, b = 0x41c6ce57;
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      a = Math.imul(a ^ c, 2654435761);
      b = Math.imul(b ^ c, 1597334677);
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return (4294967296 * (2097151 & b) + (a >>> 0)).toString(16);
  }

  function snapshot(first, characters) {
    next = Math.max(next, first);
    const body = document.body ? childrenOf(document.body).flatMap((node) => lines(node, false)) : [];
    const root = `RootWebArea ${quote(document.title)}, url=${quote(location.pathname + location.search + location.hash)}`;
    const text = cut([root, ...body.map((line) => "\t".repeat(line.depth + 1) + line.text)], characters).join("\n");
    return JSON.stringify({ text, next, digest: digest(), refused: refused.splice(0) });
  }

  // Forgets what the episode before has seen and left: the document is played again.
  function restart() {
    next = 1;
    for (const ref of elements.values()) if (ref.deref()) bids.delete(ref.deref());
    elements.clear();
    refused.length = 0;
    clip = "";
    if (document.activeElement) document.activeElement.blur();
    getSelection().removeAllRanges();
    scrollTo({ left: 0, top: 0, behavior: "instant" });
    return location.pathname;
  }

  // Actions. Each function returns an error, "" if all went well, or a point.

  const describe = (e) => {
    const r = role(e) || (isShape(e) ? e.localName : "clickable");
    return `${r} ${quote(label(e) || (e.tagName === "SELECT" ? "" : e.textContent.slice(0, 200)))}`;
  };

  // Like `describe`, with its place among those that look the same: what an action means, whatever the bids.
  function nameOf(e) {
    const said = describe(e);
    const twins = [...elements.values()].map((ref) => ref.deref()).filter((other) => other && other.isConnected && describe(other) === said);
    const before = twins.filter((other) => other.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING).length;
    return before ? `${said} #${before + 1}` : said;
  }

  function find(bid) {
    const ref = elements.get(bid);
    if (!ref && !(/^\d+$/.test(bid) && Number(bid) < next)) return { error: `there is no element ${bid}; take a bid from the newest observation` };
    const e = ref && ref.deref();
    if (!e || !e.isConnected) return { error: `element ${bid} is gone; take a bid from the newest observation` };
    if (!isVisible(e)) return { error: `element ${bid} is hidden` };
    return { e };
  }

  function enabled(bid) {
    const found = find(bid);
    if (found.e && found.e.matches(":disabled")) return { error: `element ${bid} is disabled` };
    if (found.e && get(found.e, "aria-disabled") === "true") return { error: `element ${bid} is disabled` };
    return found;
  }

  const offset = (e) => { // of the element's frame within the page
    let x = 0, y = 0;
    for (let w = e.ownerDocument.defaultView; w && w !== window && w.frameElement; w = w.parent) {
      const box = w.frameElement.getBoundingClientRect();
      x += box.left + w.frameElement.clientLeft;
      y += box.top + w.frameElement.clientTop;
    }
    return { x, y };
  };

  function hit(e, x, y) {
    let at = e.ownerDocument.elementFromPoint(x, y);
    while (at && at.shadowRoot) {
      const inner = at.shadowRoot.elementFromPoint(x, y);
      if (!inner || inner === at) break;
      at = inner;
    }
    return at;
  }

  const within = (e, at) => at !== null && (at === e || e.contains(at) || at.getRootNode().host === e ||
    (at.closest("label") !== null && at.closest("label").control === e));

  function candidates(e) {
    const points = [];
    for (const box of [e.getBoundingClientRect(), ...e.getClientRects()]) {
      if (box.width <= 0 || box.height <= 0) continue;
      for (const [fx, fy] of [[0.5, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75], [0.1, 0.1], [0.9, 0.9]]) {
        points.push({ x: box.left + box.width * fx, y: box.top + box.height * fy });
      }
    }
    return points;
  }

  const inView = (e, p) => p.x >= 0 && p.y >= 0 && p.x < e.ownerDocument.documentElement.clientWidth && p.y < e.ownerDocument.defaultView.innerHeight;

  function point(bid) {
    const { e, error } = enabled(bid);
    if (error) return { error };
    const points = () => candidates(e).filter((p) => inView(e, p) && within(e, hit(e, p.x, p.y)));
    let good = points();
    if (!good.length) {
      e.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
      good = points();
    }
    const shift = offset(e);
    if (good.length) return { x: good[0].x + shift.x, y: good[0].y + shift.y };
    const all = candidates(e);
    if (!all.length) return { error: `element ${bid} has no size, so it cannot be clicked` };
    const seen = all.filter((p) => inView(e, p));
    if (!seen.length) return { error: `element ${bid} lies outside of what can be seen` };
    const at = hit(e, seen[0].x, seen[0].y);
    return { error: `element ${bid} is covered by ${at ? coverOf(at) : "nothing that can be named"}` };
  }

  function coverOf(at) {
    for (let e = at; e && e.localName !== "body"; e = parentOf(e)) {
      if (bids.has(e)) return `[${bids.get(e)}] ${describe(e)}`;
      if (role(e)) return describe(e);
    }
    return `<${tagOf(at).toLowerCase()}> ${quote(tidy(String(at.textContent)).slice(0, 60))}`;
  }

  function focus(bid) {
    const { e, error } = enabled(bid);
    if (error) return error;
    e.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
    e.focus({ preventScroll: true });
    const has = focused(e.ownerDocument);
    return has === e || e.contains(has) ? "" : `element ${bid} cannot take the focus`;
  }

  const CHOSEN = new Set(["date", "time", "datetime-local", "month", "week", "range", "color"]);
  const FORMS = { date: "2026-01-31", time: "14:30", "datetime-local": "2026-01-31T14:30", month: "2026-01", week: "2026-W05", range: "50", color: "#ff0000" };

  const changed = (e) => {
    e.dispatchEvent(new Event("input", { bubbles: true, composed: true }));
    e.dispatchEvent(new Event("change", { bubbles: true }));
  };

  function fill(bid, text) {
    const { e, error } = enabled(bid);
    if (error) return error;
    const typed = e.tagName === "TEXTAREA" || e.tagName === "INPUT" && !["checkbox", "radio", "button", "submit", "reset", "file", "image"].includes(type(e));
    if (!typed && !e.isContentEditable) return `element ${bid} cannot be filled: it is a ${role(e) || e.localName}`;
    if (e.readOnly) return `element ${bid} is read-only`;
    const failed = focus(bid);
    if (failed) return failed;
    if (e.tagName === "INPUT" && CHOSEN.has(type(e))) return choose(e, bid, text);
    if (typed) e.select(); else e.ownerDocument.getSelection().selectAllChildren(e);
    e.ownerDocument.execCommand(text ? "insertText" : "delete", false, text);
    return "";
  }

  function choose(e, bid, text) {
    const before = e.value;
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(e, text);
    if (text && e.value.toLowerCase() !== text.toLowerCase() && Number(e.value) !== Number(text)) {
      Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(e, before);
      return `element ${bid} takes a ${type(e)} such as '${FORMS[type(e)]}', not ${quote(text)}`;
    }
    changed(e);
    return "";
  }

  function select(bid, wanted) {
    const { e, error } = enabled(bid);
    if (error) return error;
    if (e.tagName !== "SELECT") return `element ${bid} is no native list of options; click it, then what it shows`;
    const listed = [...e.options];
    if (wanted.length !== 1 && !e.multiple) return `element ${bid} takes one option`;
    const chosen = wanted.map((each) => listed.find((o) => o.value === each) || listed.find((o) => tidy(o.text) === tidy(each)));
    const missing = wanted.find((_, i) => !chosen[i]);
    const offers = listed.slice(0, 20).map((o) => quote(o.text)).join(", ") + (listed.length > 20 ? ", ..." : "");
    if (missing !== undefined) return `element ${bid} has no option ${quote(missing)}; it has ${offers || "none"}`;
    const off = chosen.find((o) => o.matches(":disabled"));
    if (off) return `option ${quote(off.text)} of element ${bid} is disabled`;
    e.focus({ preventScroll: true });
    for (const o of listed) o.selected = chosen.includes(o);
    changed(e);
    return "";
  }

  function clipboard(bid, what) {
    const failed = bid ? focus(bid) : "";
    if (failed) return failed;
    let e = focused(document) || document.body;
    const data = new DataTransfer();
    if (what === "paste") data.setData("text/plain", clip);
    const event = new ClipboardEvent(what, { bubbles: true, cancelable: true, composed: true, clipboardData: data });
    if (!e.dispatchEvent(event)) {
      if (what !== "paste") clip = data.getData("text/plain");
      return "";
    }
    if (what === "paste") { if (clip) document.execCommand("insertText", false, clip); return ""; }
    const typed = e.tagName === "TEXTAREA" || e.tagName === "INPUT" && e.selectionStart !== null;
    const selected = typed ? e.value.slice(e.selectionStart, e.selectionEnd) : String(getSelection());
    if (selected) clip = selected;
    if (selected && what === "cut") document.execCommand("delete");
    return "";
  }

  function scroll(bid, dx, dy) {
    let e = document.scrollingElement;
    if (bid) {
      const found = find(bid);
      if (found.error) return found.error;
      for (e = found.e; e && !(e.scrollHeight > e.clientHeight || e.scrollWidth > e.clientWidth); e = parentOf(e));
      e = e || document.scrollingElement;
    }
    const before = [e.scrollLeft, e.scrollTop];
    if (!e.dispatchEvent(new WheelEvent("wheel", { bubbles: true, cancelable: true, deltaX: dx, deltaY: dy }))) return "";
    e.scrollBy({ left: dx, top: dy, behavior: "instant" });
    const moved = before[0] !== e.scrollLeft || before[1] !== e.scrollTop;
    // The browser tells of it with the next frame, of which virtual time has none.
    if (moved && options.virtual) (e === document.scrollingElement ? document : e).dispatchEvent(new Event("scroll", { bubbles: e === document.scrollingElement }));
    return moved ? "" : "nothing could be scrolled that way";
  }

  const ACTS = { point, focus: (bid) => ({ error: focus(bid) }), fill: (bid, text) => ({ error: fill(bid, text) }),
    select: (bid, wanted) => ({ error: select(bid, wanted) }), scroll: (bid, dx, dy) => ({ error: scroll(bid, dx, dy) }),
    clipboard: (bid, what) => ({ error: clipboard(bid, what) }) };

  // Returns {what, error, x, y}: what was acted on, in words that do not depend on bids.
  function act(name, bid, ...rest) {
    const ref = elements.get(bid);
    const e = ref && ref.deref();
    const what = e && e.isConnected ? nameOf(e) : "";
    return { what, error: "", ...ACTS[name](bid, ...rest) };
  }

  Object.defineProperty(window, "__agentrl", { value: Object.freeze({ hot, refused, snapshot, restart, act }) });
}
