// What all gyms' pages share: drawing, talking to the backend, and the conditions of the episode.
//
// A page calls `gym.show(draw, hidden)`; `draw()` returns nodes made by `gym.h(tag, properties, ...children)`, and is
// called again after everything that happens. Nodes that stay the same stay the same elements, unless a condition has
// the page drawn anew. `hidden()` is what a page remembers and does not show, if anything. Only timers are used:
// animations and frames do not advance in virtual time.
(() => {
  const shown = __SHOWN__, conditions = __CONDITIONS__;
  const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));
  // How long an answer takes at least. Chromium has a request take 10 ms, and lets the page see the answer before or after.
  const ANSWER_MS = 20;
  let draw = () => [], hidden = () => [], root = null, presses = 0, shifts = conditions.shifts;
  const state = { busy: 0, status: '', unsure: false, records: shown.records || [], popups: [], ready: false };

  // Nodes

  const h = (tag, properties, ...children) => ({ tag, properties: properties || {}, children: children.flat(9).filter((each) => each || each === 0) });

  // A control with its name beside it; the tree has the name once, on the control.
  const named = (name, tag, properties, ...children) => h('div', { key: 'named ' + name },
    h('span', { 'aria-hidden': 'true' }, name + ' '), h(tag, { 'aria-label': name, ...properties }, ...children));

  function fits(element, node) {
    if (typeof node !== 'object') return element.nodeType === 3;
    return element.nodeType === 1 && element.nodeName.toLowerCase() === node.tag && element.gymKey === node.properties.key;
  }

  function make(node) {
    if (typeof node !== 'object') return document.createTextNode(String(node));
    const element = document.createElement(node.tag);
    element.gymKey = node.properties.key;
    element.gymProperties = {};
    return element;
  }

  const LIVE = new Set(['value', 'checked', 'disabled', 'selected', 'onclick', 'oninput', 'onchange', 'onsubmit', 'onmousedown', 'onfocus']);

  function set(element, name, value) {
    if (LIVE.has(name)) { if (element[name] !== value) element[name] = value; }
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }

  function patch(element, node) {
    if (typeof node !== 'object') { if (element.nodeValue !== String(node)) element.nodeValue = String(node); return; }
    const before = element.gymProperties, now = node.properties;
    for (const name of Object.keys(before)) if (!(name in now) && name !== 'key') set(element, name, LIVE.has(name) ? (name === 'disabled' ? false : null) : null);
    sync(element, node.children);
    for (const name of Object.keys(now)) if (name !== 'key') set(element, name, now[name]);
    element.gymProperties = now;
  }

  function sync(parent, nodes) {
    let at = parent.firstChild;
    for (const node of nodes) {
      let element = at;
      while (element && !fits(element, node)) element = element.nextSibling;
      if (!element) { element = make(node); parent.insertBefore(element, at); }
      else if (element !== at) parent.insertBefore(element, at);
      patch(element, node);
      at = element.nextSibling;
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  }

  // The page

  function footer() {
    const parts = state.records.map((each, index) => h('div', { key: 'record' + index }, each));
    if (state.busy) parts.push(h('div', { key: 'status', role: 'status' }, 'Loading...'));
    else if (state.status) parts.push(h('div', { key: 'status', role: 'status' }, state.status));
    if (state.unsure && !state.busy) parts.push(h('button', { key: 'refresh', onclick: () => refresh() }, 'Refresh'));
    return parts;
  }

  const popup = (number) => h('div', { key: 'popup' + number, role: 'dialog', class: 'layer' },
    'How do you like this page?',
    h('button', { onclick: () => { state.popups.shift(); update(); } }, 'Not now'));

  // The env recognises equal states by the document, so what else the future depends on is written down there.
  function mark() {
    const slips = conditions.slips.filter((each) => each >= presses).map((each) => each - presses);
    document.documentElement.setAttribute('data-gym', JSON.stringify([slips, shifts, state.popups, hidden()]));
  }

  function update() {
    if (!root) return;
    mark();
    const body = state.ready ? [...draw(), ...footer()] : ['Loading...'];
    sync(root, [...body.flat(9).filter((each) => each || each === 0), ...state.popups.slice(0, 1).map(popup)]);
  }

  function redraw() { if (root) { root.replaceChildren(); update(); } }

  // The backend

  async function ask(path, data) {
    state.busy += 1; state.status = ''; update();
    const asked = Date.now();
    try {
      const options = data === undefined ? {} : { method: 'POST', body: JSON.stringify(data) };
      const response = await fetch('/api/' + path, options);
      const delay = Number(response.headers.get('x-agentrl-delay')) || 0;
      const answer = await response.json();
      await sleep(asked + Math.max(delay, ANSWER_MS) - Date.now());
      if (!response.ok) {
        state.status = 'Error ' + response.status + ': ' + answer.error;
        // Where a look at what was saved failed, too, nobody knows what was.
        state.unsure = state.unsure || response.status === 504 || data === undefined;
        return null;
      }
      if (answer.records) { state.records = answer.records; state.unsure = false; }
      if (answer.status) state.status = answer.status;
      return answer;
    } finally { state.busy -= 1; update(); }
  }

  const refresh = () => ask('records');

  // Conditions

  document.addEventListener('mousedown', () => { if (conditions.slips.includes(presses++)) redraw(); mark(); }, true);
  document.addEventListener('mousemove', (event) => {
    const moving = shifts > 0 && event.target.closest && event.target.closest('.moves');
    if (moving) { shifts -= 1; moving.style.marginTop = moving.style.marginTop ? '' : '32px'; mark(); }
  }, true);

  const STYLE = 'body{font:14px sans-serif;margin:8px} button,input,select{margin:2px;height:26px}'
    + ' .layer{position:fixed;inset:0;background:#fff;z-index:9;padding:20px} .row{display:flex;flex-wrap:wrap;max-width:420px}'
    + ' p{margin:4px 0} h1{font-size:16px;margin:4px 0}';

  function begin() {
    const style = document.createElement('style');
    style.textContent = STYLE;
    document.head.append(style);
    root = document.createElement('main');
    document.body.append(root);
    if (conditions.zoom !== 1) document.documentElement.style.zoom = conditions.zoom;
    state.ready = !conditions.scaffold;
    if (!state.ready) setTimeout(() => { state.ready = true; update(); }, conditions.scaffold);
    for (const time of conditions.redraws) setTimeout(redraw, time);
    conditions.popups.forEach((time, number) => setTimeout(() => { state.popups.push(number); update(); }, time));
    update();
  }

  window.gym = { shown, state, h, named, ask, refresh, update, redraw, sleep, show: (page, memory) => { draw = page; hidden = memory || hidden; begin(); } };
})();
