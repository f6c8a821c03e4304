// The chat page: draws the conversation, and listens to the user, the server and the clock. Text
// from the network reaches the document as text (textContent), never as markup.

import { readMessage, readName, readSeat } from './checked.js';
import { CLOSE, Conversation, Reconnection, fold, parseTyped } from './conversation.js';
import { language, texts } from './texts.js';

const ROOM_DEFAULT = 'lobby';
const MESSAGES_MAX = 500; // entries kept in the log; twice as many while the user reads further up
const LOG_UNITS_MAX = 16 << 20; // length of all messages in the log
const LINKS_MAX = 100; // links in one message; more addresses stay text
const MEMBERS_SHOWN_MAX = 500;
const NOTICE_NAMES_MAX = 4; // names in one part of a notice
const NOTICE_MEMBERS_MAX = 100; // members in one notice
const GROUP_MS = 5 * 60_000; // a member's messages within this time stand under one name
const STEADY_MS = 10_000; // a connection that stays open for this long resets the backoff
const WELCOME_MS = 10_000; // a connection without its welcome and history by then is given up
const NEAR_END_PX = 48;

const $ = (id) => document.getElementById(id);
const input = $('text');
const scroll = $('scroll');

// Exported for the tests, and to look at in the browser's console.
export const conversation = new Conversation(
  Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join(''),
);
export const reconnection = new Reconnection(Date.now());
/** The current socket, and timers. */
export const connection = { socket: null, retry: 0, countdown: 0, steady: 0, welcome: 0 };

const view = {
  queue: [], // entries to draw
  queueUnits: 0, // length of their contents
  logUnits: 0, // the same in the log
  scheduled: false,
  last: null, // about the last entry, for the next to continue it
  atEnd: true, // the end of the log is in sight
  below: 0, // new messages below what is in sight
  unread: 0, // messages since the tab was hidden
  membersChanged: false,
};
/** The node of each unconfirmed message. */
const unconfirmedNodes = new Map();
/** The length of the content in each node of the log. */
const nodeUnits = new WeakMap();

// -------------------------------------------------------------------------------------- connection

function connect() {
  clearTimeout(connection.retry);
  clearInterval(connection.countdown);
  reconnection.replaced = false;
  showStatus(texts.connecting);
  disconnect(CLOSE.suspect);
  const url = new URL('ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = conversation.query();
  url.hash = '';
  const socket = new WebSocket(url);
  connection.socket = socket;
  connection.welcome = setTimeout(() => lost({ code: 1006, reason: '' }), WELCOME_MS);
  socket.onmessage = (event) => {
    const message = socket === connection.socket ? readMessage(event.data) : null;
    if (message) received(message);
  };
  socket.onclose = (event) => socket === connection.socket && lost(event);
}

/** Closes the socket. What it still receives is ignored. */
function disconnect(code) {
  const { socket } = connection;
  connection.socket = null;
  conversation.disconnect();
  reconnection.suspect = false;
  clearTimeout(connection.steady);
  clearTimeout(connection.welcome);
  socket?.close(code);
}

function lost({ code, reason }) {
  const welcomed = !conversation.awaitsWelcome;
  disconnect(CLOSE.suspect);
  if (code === CLOSE.tooBig) apply(conversation.failOldest(texts.errors.too_big));
  const next = reconnection.closed(code, { welcomed, now: Date.now(), random: Math.random() });
  if (next.replaced) showStatus(texts.elsewhere, texts.continueHere);
  else if (next.refused) openDoor(reason);
  else reconnectIn(next.waitMs);
}

function reconnectIn(ms) {
  const due = Date.now() + ms;
  const show = () => {
    const seconds = Math.max(1, Math.ceil((due - Date.now()) / 1000));
    const offline = navigator.onLine === false;
    showStatus(offline ? texts.offline : texts.reconnectingIn(seconds), texts.tryNow);
  };
  show();
  connection.countdown = setInterval(show, 1000);
  connection.retry = setTimeout(connect, ms);
}

/** Connects at once if the user is in the room without a connection that can be trusted. */
function connectIfNeeded() {
  const isTrusted = connection.socket && !reconnection.suspect;
  if ($('parlour').hidden || reconnection.replaced || isTrusted) return;
  reconnection.attempts = 0;
  connect();
}

/** Replaces a connection that shows signs of being dead. */
function tick() {
  const now = Date.now();
  if (reconnection.tick(now, conversation.isOverdue(now))) connectIfNeeded();
}

setInterval(tick, 1000);
addEventListener('online', connectIfNeeded);
addEventListener('offline', () => { reconnection.suspect = true; });
addEventListener('pageshow', connectIfNeeded);
addEventListener('pagehide', () => { if (!$('parlour').hidden) remember(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  view.unread = 0;
  showUnread();
  tick();
  connectIfNeeded();
});
$('reconnect').onclick = () => {
  reconnection.attempts = 0;
  connect();
};

function showStatus(status, action = '') {
  $('connection').hidden = status === '';
  // Written again, the same status would be read out again by a screen reader.
  if ($('connection-text').textContent !== status) $('connection-text').textContent = status;
  $('reconnect').hidden = action === '';
  if (action !== '') $('reconnect').textContent = action;
}

// ------------------------------------------------------------------------------------ conversation

function received(message) {
  const effects = conversation.receive(message, Date.now());
  if (message.type === 'welcome') welcomed();
  apply(effects);
  if (effects.upToDate) upToDate();
  if (effects.alert) alertUser(effects.alert);
}

function welcomed() {
  connection.steady = setTimeout(() => { reconnection.attempts = 0; }, STEADY_MS);
  showStatus('');
  showRoom();
  // A screen reader should not read out the history.
  $('live').setAttribute('aria-live', 'off');
  remember();
}

function upToDate() {
  clearTimeout(connection.welcome);
  setTimeout(() => $('live').setAttribute('aria-live', 'polite'), 500);
}

/** Draws and sends what follows from an event. Keeps it for a reload, too. */
function apply(effects) {
  if (effects.retracted) retract(effects.retracted);
  effects.toShow.forEach(show);
  effects.changed.forEach(drawUnconfirmed);
  if (effects.hasFailed) toEnd();
  if (effects.membersChanged) {
    view.membersChanged = true;
    schedule();
  }
  if (effects.changed.size > 0) remember();
  for (const message of effects.toSend) connection.socket.send(JSON.stringify(message));
}

function drawUnconfirmed(item) {
  if (conversation.unconfirmed.get(item.message.ref) !== item) {
    unconfirmedNodes.get(item)?.remove();
    unconfirmedNodes.delete(item);
    return;
  }
  if (!unconfirmedNodes.has(item)) {
    unconfirmedNodes.set(item, make('li'));
    $('unconfirmed').append(unconfirmedNodes.get(item));
  }
  const { message, failed } = item;
  const node = unconfirmedNodes.get(item);
  node.className = `message ${message.type} ${failed ? 'failed' : ''}`;
  const status = make('div', 'status');
  if (failed) {
    const why = make('span', '', failed);
    why.setAttribute('role', 'alert');
    const retry = () => apply(conversation.retry(item, Date.now()));
    const discard = () => apply(conversation.discard(item));
    status.append(why, button(texts.retry, retry), button(texts.discard, discard));
  } else {
    status.append(make('span', '', texts.sending));
  }
  const recipient = message.to ? [make('div', 'only', texts.toOnly(message.to))] : [];
  node.replaceChildren(...recipient, body(message.content), status);
}

/** Removes a private message of this member from the log: it was not delivered after all. */
function retract(ref) {
  view.queue = view.queue.filter((entry) => entry.ref !== ref || entry.user !== conversation.name);
  view.queueUnits = view.queue.reduce((sum, entry) => sum + unitsOf(entry), 0);
  for (const node of $('log').querySelectorAll('.private')) {
    if (node.dataset.ref === ref) removeFromLog(node);
  }
}

// --------------------------------------------------------------------------------------------- log

/** Draws an entry with the next frame, so that a burst of messages costs one layout. */
function show(entry) {
  view.queue.push({ ts: Date.now(), ...entry });
  view.queueUnits += unitsOf(entry);
  // A hidden tab may not be drawn for a minute.
  while (view.queue.length > MESSAGES_MAX || view.queueUnits > LOG_UNITS_MAX) {
    view.queueUnits -= unitsOf(view.queue.shift());
  }
  schedule();
}

const unitsOf = ({ content }) => content?.length ?? 0;

function schedule() {
  if (view.scheduled) return;
  view.scheduled = true;
  // A hidden tab gets no animation frames.
  if (document.hidden) setTimeout(draw, 200);
  else requestAnimationFrame(draw);
}

function draw() {
  view.scheduled = false;
  const entries = view.queue.splice(0);
  view.queueUnits = 0;
  const log = $('log');
  const fragment = document.createDocumentFragment();
  for (const entry of entries) drawEntry(entry, fragment);
  log.append(fragment);
  const max = view.atEnd ? MESSAGES_MAX : 2 * MESSAGES_MAX;
  while (log.childElementCount > max || view.logUnits > LOG_UNITS_MAX) {
    removeFromLog(log.firstElementChild);
  }
  if (view.atEnd) {
    toEnd();
  } else {
    view.below += entries.filter(({ type }) => type !== 'join' && type !== 'leave').length;
    showPill();
  }
  if (view.membersChanged) drawMembers();
}

function removeFromLog(node) {
  view.logUnits -= nodeUnits.get(node) ?? 0;
  node.remove();
}

const clock = new Intl.DateTimeFormat(navigator.language, { hour: '2-digit', minute: '2-digit' });
const calendar = new Intl.DateTimeFormat(navigator.language, {
  weekday: 'long',
  day: 'numeric',
  month: 'long',
});

function drawEntry(entry, fragment) {
  const when = new Date(entry.ts);
  const day = when.toDateString();
  if (view.last?.day !== day) {
    fragment.append(make('li', 'day', calendar.format(when)));
    view.last = { day };
  }
  switch (entry.type) {
    case 'join':
    case 'leave': return drawNotice(entry, fragment);
    case 'note': fragment.append(make('li', 'notice', entry.content)); break;
    case 'divider': fragment.append(make('li', 'divider', entry.content)); break;
    default: return drawMessage(entry, when, fragment);
  }
  view.last = { day };
}

/** Joins and leaves in a row share a notice. */
function drawNotice({ type, user }, fragment) {
  if (!(view.last.notice?.states.size < NOTICE_MEMBERS_MAX)) {
    view.last = { day: view.last.day, notice: { node: make('li', 'notice'), states: new Map() } };
    view.last.notice.node.setAttribute('aria-live', 'off');
    fragment.append(view.last.notice.node);
  }
  const { node, states } = view.last.notice;
  const before = states.get(user);
  const after = type === 'join' ? 'joined' : 'left';
  // A member who left and came back needs no notice.
  if (before === 'left' && after === 'joined') states.delete(user);
  else states.set(user, before && after === 'left' ? 'visited' : after);
  const parts = ['joined', 'left', 'visited'].map((state) => {
    const names = [...states].filter(([, each]) => each === state).map(([name]) => isolate(name));
    if (names.length === 0) return '';
    return texts[state](names.slice(0, NOTICE_NAMES_MAX), names.length - NOTICE_NAMES_MAX);
  });
  node.textContent = parts.filter(Boolean).join(' · ');
}

/** Keeps a name from changing the direction of the text around it. */
const isolate = (name) => `\u2068${name}\u2069`;

function drawMessage(entry, when, fragment) {
  const { day, user, ts } = view.last;
  const isPrivate = entry.type === 'private';
  const more = !isPrivate && user === entry.user && entry.ts - ts < GROUP_MS;
  const isMention = entry.user !== conversation.name && conversation.isMention(entry.content);
  const classes = ['message', entry.type, more && 'more', isMention && 'mention'];
  const node = make('li', classes.filter(Boolean).join(' '));
  const by = make('div', more ? 'by unseen' : 'by');
  const time = make('time', '', clock.format(when));
  time.dateTime = when.toISOString();
  by.append(isPrivate ? privateNode(entry) : nameNode(entry.user), time);
  if (isPrivate && entry.ref && entry.user === conversation.name) node.dataset.ref = entry.ref;
  node.append(by, body(entry.content));
  nodeUnits.set(node, entry.content.length);
  view.logUnits += entry.content.length;
  fragment.append(node);
  view.last = isPrivate ? { day } : { day, user: entry.user, ts: entry.ts };
}

function privateNode({ user, to }) {
  const display = (name) => (name === conversation.name ? texts.you : name);
  return make('bdi', 'only', texts.privateFrom(display(user), display(to)));
}

function nameNode(name) {
  const node = make('bdi', 'name', name);
  node.style.setProperty('--hue', hue(name));
  return node;
}

/** The hue of a name: its FNV-1a hash, mixed once more to spread short names over the circle. */
function hue(name) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(fold(name))) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return ((hash ^ (hash >>> 16)) >>> 0) % 360;
}

/** Turns web addresses in a text into links. Only http and https become links. */
function body(content) {
  const node = make('p', 'body');
  node.dir = 'auto';
  let from = 0;
  let left = LINKS_MAX;
  for (const match of content.matchAll(/https?:\/\/[^\s<>"'`\u2028-\u202e\u2066-\u2069]+/gi)) {
    if (left === 0) break;
    left -= 1;
    let address = trimPunctuation(match[0]);
    if (address.endsWith(')') && !address.includes('(')) address = address.slice(0, -1);
    let url;
    try { url = new URL(address); } catch { continue; }
    if (url.protocol !== 'http:' && url.protocol !== 'https:') continue;
    const link = make('a', '', address);
    link.href = url.href;
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
    node.append(content.slice(from, match.index), link);
    from = match.index + address.length;
  }
  node.append(content.slice(from));
  return node;
}

/** Removes punctuation at the end, which no regular expression does in time linear in the text. */
function trimPunctuation(address) {
  let end = address.length;
  while (end > 0 && '.,;:!?…。，；：！？'.includes(address[end - 1])) end -= 1;
  return address.slice(0, end);
}

function make(tag, className, content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
}

function button(label, onclick) {
  const node = make('button', '', label);
  node.type = 'button';
  node.onclick = onclick;
  return node;
}

// --------------------------------------------------------------------------------------- scrolling

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
  view.atEnd = true;
  view.below = 0;
  showPill();
}

function showPill() {
  $('pill').hidden = view.atEnd || view.below === 0;
  $('pill').textContent = texts.newMessages(view.below);
}

scroll.addEventListener('scroll', () => {
  view.atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END_PX;
  if (view.atEnd) view.below = 0;
  showPill();
}, { passive: true });
// When the on-screen keyboard comes or the phone is turned, the end stays in sight.
new ResizeObserver(() => { if (view.atEnd) toEnd(); }).observe(scroll);
window.visualViewport?.addEventListener('resize', () => {
  $('parlour').style.setProperty('--height', `${visualViewport.height}px`);
});
$('pill').onclick = () => {
  toEnd();
  input.focus();
};

// ----------------------------------------------------------------------------------------- members

function drawMembers() {
  view.membersChanged = false;
  const compare = new Intl.Collator(navigator.language).compare;
  const names = [...conversation.members.values()].sort(compare);
  $('count').textContent = texts.count(names.length);
  $('show-members').textContent = texts.count(names.length);
  const items = names.slice(0, MEMBERS_SHOWN_MAX).map(memberNode);
  const more = names.length - MEMBERS_SHOWN_MAX;
  if (more > 0) items.push(make('li', 'notice', texts.more(more)));
  // The keyboard's focus stays at its place in the list.
  const focused = [...$('names').querySelectorAll('button')].indexOf(document.activeElement);
  $('names').replaceChildren(...items);
  if (focused >= 0) {
    $('names').querySelectorAll('button')[Math.min(focused, names.length - 1)].focus();
  }
}

function memberNode(name) {
  const self = name === conversation.name;
  const node = button('', () => (self ? input.focus() : writeTo(name)));
  node.append(nameNode(name), self ? texts.yourself : '');
  if (!self) node.setAttribute('aria-label', texts.writeTo(name));
  const item = make('li');
  item.append(node);
  return item;
}

function openMembers(open) {
  $('members').classList.toggle('open', open);
  $('show-members').setAttribute('aria-expanded', open);
}

$('show-members').onclick = () => openMembers(!$('members').classList.contains('open'));

// ---------------------------------------------------------------------------------------- composer

let recipient = null; // who gets what is written, or null for everyone
let completion = null; // names that Tab goes through

function writeTo(name) {
  recipient = name;
  $('recipient').hidden = name === null;
  $('recipient-text').textContent = name === null ? '' : texts.toOnly(name);
  openMembers(false);
  input.focus();
}

function submit() {
  const request = parseTyped(input.value, recipient, conversation.members);
  if (request === null) return;
  apply(conversation.post(request.to, request.content, Date.now()));
  toEnd();
  input.value = '';
  grow();
}

function grow() {
  input.style.height = 'auto';
  input.style.height = `${input.scrollHeight + 2}px`;
}

/**
 * Completes a name after its beginning; pressed again, with the next that fits. Returns false where
 * there is nothing to complete: there, Tab moves the focus as usual.
 */
function complete() {
  const caret = input.selectionStart;
  if (completion?.end !== caret) {
    const word = input.value.slice(0, caret).search(/\S+$/);
    if (word < 0) return false;
    const start = input.value[word] === '@' ? word + 1 : word;
    const stem = input.value.slice(start, caret);
    const names = conversation.completions(stem);
    if (stem === '' || names.length === 0) return false;
    completion = { start, end: caret, names, next: 0 };
  }
  const name = completion.names[completion.next % completion.names.length];
  const inserted = completion.start === 0 ? `${name}: ` : `${name} `;
  input.setRangeText(inserted, completion.start, completion.end, 'end');
  completion.end = completion.start + inserted.length;
  completion.next += 1;
  return true;
}

$('public').onclick = () => writeTo(null);
input.addEventListener('input', () => {
  completion = null;
  grow();
});
input.addEventListener('keydown', (event) => {
  // These keys belong to the input method (229 is what older browsers report).
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === 'Enter' && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (event.key === 'Tab' && !event.shiftKey && !event.ctrlKey && !event.altKey) {
    if (complete()) event.preventDefault();
  } else if (event.key === 'Escape' && recipient !== null) {
    writeTo(null);
  }
});
$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
  input.focus();
});

// --------------------------------------------------------------------------------------- attention

function alertUser(message) {
  if (document.hidden) {
    view.unread += 1;
    showUnread();
    if ($('notify').checked) notify(message);
  }
  const isForMe = message.type === 'private' || conversation.isMention(message.content);
  if ($('sound').checked && (document.hidden || isForMe)) beep();
}

function notify({ user, content }) {
  if (window.Notification?.permission !== 'granted') return;
  const { room } = conversation;
  const options = { body: content.slice(0, 200), tag: `parlour-${room}` };
  try {
    new Notification(`${user} · ${room}`, options);
  } catch { /* Some phones have the constructor but throw. The title shows the number as well. */ }
}

function showUnread() {
  const { unread } = view;
  const { room } = conversation;
  document.title = unread > 0 ? `(${unread}) ${room}` : `${room} · parlour`;
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
    <path d="M4 6h24v16H14l-6 6v-6H4z" fill="#0a58ca"/>${unread > 0 ? badge(unread) : ''}</svg>`;
  const link = document.querySelector('link[rel=icon]');
  link.href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
}

const badge = (count) => `<circle cx="22" cy="10" r="10" fill="#d1242f"/>
  <text x="22" y="15" font-size="14" font-family="sans-serif" fill="#fff" text-anchor="middle"
  >${Math.min(count, 99)}</text>`;

let audio = null;
function beep() {
  audio ||= new AudioContext();
  const tone = audio.createOscillator();
  const volume = audio.createGain();
  volume.gain.setValueAtTime(0.08, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.25);
  tone.frequency.value = 660;
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.25);
}

// ---------------------------------------------------------------------------------------- settings

for (const id of ['sound', 'notify']) $(id).checked = load(`parlour-${id}`) === 'yes';

$('sound').onchange = () => {
  if ($('sound').checked) beep();
  save('parlour-sound', $('sound').checked ? 'yes' : 'no');
};
$('notify').onchange = async () => {
  if ($('notify').checked && (await window.Notification?.requestPermission()) !== 'granted') {
    $('notify').checked = false;
    show({ type: 'note', content: texts.noNotifications });
  }
  save('parlour-notify', $('notify').checked ? 'yes' : 'no');
};

$('copy').onclick = async () => {
  try {
    await navigator.clipboard.writeText(roomLink());
  } catch {
    // Without https there is no clipboard interface, but the old command works.
    const field = make('textarea', 'unseen', roomLink());
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  $('copy').textContent = texts.copied;
  setTimeout(() => { $('copy').textContent = texts.copyLink; }, 2000);
};

function roomLink() {
  const url = new URL(location.href);
  url.search = new URLSearchParams({ room: conversation.room });
  url.hash = '';
  return url.href;
}

$('leave').onclick = () => {
  $('settings').open = false;
  openDoor();
};
document.addEventListener('click', (event) => {
  if (!$('settings').contains(event.target)) $('settings').open = false;
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') $('settings').open = false;
});

// -------------------------------------------------------------------------------------------- door

/** Leaves the room. `reason` is the name of a refusal. */
function openDoor(reason = '') {
  disconnect(CLOSE.left);
  forgetSeat();
  reconnection.replaced = false;
  clearTimeout(connection.retry);
  clearInterval(connection.countdown);
  $('parlour').hidden = true;
  $('door').hidden = false;
  $('refusal').hidden = reason === '';
  $('refusal').textContent =
    Object.hasOwn(texts.refusals, reason) ? texts.refusals[reason] : reason;
  $('name').value = conversation.name;
  $('room').value = conversation.room;
  const field = reason === 'invalid_room' || reason === 'room_limit' ? 'room' : 'name';
  $(field).select();
}

function enter() {
  $('door').hidden = true;
  $('parlour').hidden = false;
  showRoom();
  reconnection.attempts = 0;
  connect();
  input.focus();
}

/** Shows the room as it was typed or, after the welcome, as the server calls it. */
function showRoom() {
  $('room-name').textContent = conversation.room;
  // Relative, because a page whose address holds a password may not set an absolute one.
  history.replaceState(null, '', `?${new URLSearchParams({ room: conversation.room })}`);
  showUnread();
}

/** Removes what was shown of another room. */
function clearLog() {
  view.queue.length = 0;
  view.queueUnits = 0;
  view.logUnits = 0;
  view.last = null;
  $('log').replaceChildren();
  unconfirmedNodes.clear();
  $('unconfirmed').replaceChildren();
  writeTo(null);
}

$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  conversation.name = $('name').value.trim();
  if (conversation.moveTo($('room').value.trim())) clearLog();
  save('parlour-name', conversation.name);
  remember();
  enter();
});

// ----------------------------------------------------------------------------------------- storage

/** Keeps a setting. In private browsing, storage may be switched off, and nothing is kept. */
function save(key, value) {
  try { localStorage.setItem(key, value); } catch { /* nothing is kept */ }
}

function load(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

const SEAT = 'parlour-seat';

/** Keeps what this tab needs to resume its conversation after a reload. */
function remember() {
  const seat = JSON.stringify(conversation.toSeat());
  try { sessionStorage.setItem(SEAT, seat); } catch { /* a reload starts over */ }
}

/** Returns what `remember` kept in this tab, or in the tab that this one was copied from. */
function recall() {
  try { return readSeat(sessionStorage.getItem(SEAT)); } catch { return null; }
}

function forgetSeat() {
  try { sessionStorage.removeItem(SEAT); } catch { /* nothing was kept */ }
}

// ------------------------------------------------------------------------------------------- start

function translate() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll('[data-text]')) {
    node.textContent = texts[node.dataset.text];
  }
  for (const node of document.querySelectorAll('[data-label]')) {
    node.setAttribute('aria-label', texts[node.dataset.label]);
  }
  input.placeholder = texts.typeHere;
}

function start() {
  translate();
  conversation.name = readName(load('parlour-name'));
  conversation.room = new URLSearchParams(location.search).get('room') || ROOM_DEFAULT;
  showUnread();
  // After a reload, the user is back in the room at once.
  const seat = recall();
  if (!seat || !conversation.isIn(seat.room)) return openDoor();
  conversation.resume(seat);
  for (const item of conversation.unconfirmed.values()) drawUnconfirmed(item);
  enter();
}

start();
