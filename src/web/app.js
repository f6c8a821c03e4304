// The chat page. Every text from the network reaches the document as text (textContent), never as markup.
'use strict';

const MESSAGES_MAX = 500; // nodes kept in the log; twice as many while somebody reads further up
const MEMBERS_SHOWN_MAX = 500;
const GROUP_MS = 5 * 60_000; // messages of one person within this stand under one name
const BACKOFF_MS = { first: 500, most: 30_000 };
const STEADY_MS = 10_000; // a connection that lasts this long starts the backoff anew
const RECEIPT_MS = 15_000; // a message without its receipt for this long means the line is dead
const WELCOME_MS = 10_000; // and so does a connection without its welcome and history
const ASLEEP_MS = 90_000; // a clock that stood still for this long: the device slept, and the line may be gone. Hidden tabs tick once a minute
const ORPHAN_MS = 15_000; // after an attempt that broke unseen, the name may be taken by nobody but oneself
const BROKEN = 4000; // closes a line that is not trusted any more; unlike 1000, it is no leaving
const FINAL = new Set([4400, 4409, 4503]); // closes that trying again does not mend
const WHISPERS_MAX = 64; // private messages that may still come back as not delivered
const NEAR_END_PX = 48;

// ---------------------------------------------------------------------------------------------------------- texts

const TEXTS = {
  en: {
    yourName: 'Your name', roomName: 'Room', joinRoom: 'Join', copyLink: 'Copy link', copied: 'Copied',
    settings: 'Settings', playSound: 'Play a sound', showNotifications: 'Desktop notifications',
    changeRoom: 'Change name or room', tryNow: 'Try now', conversation: 'Conversation', members: 'Members',
    pendingMessages: 'Messages being sent', message: 'Message', typeHere: 'Write a message', send: 'Send',
    backToAll: 'Write to everyone again', retry: 'Send again', discard: 'Discard', sending: 'sending…', you: 'you',
    hint: 'Enter sends, Shift and Enter begin a new line, Tab completes names, /msg NAME TEXT sends privately.',
    writeTo: (name) => `Write to ${name} privately`,
    toOnly: (name) => `To ${name}: only the two of you will see this`,
    privateFrom: (from, to) => `${from} → ${to} · only the two of you see this`,
    count: (n) => `${n} here`, more: (n) => `and ${n} more`,
    newMessages: (n) => (n === 1 ? '1 new message ↓' : `${n} new messages ↓`),
    joined: (names) => `${names} joined`, left: (names) => `${names} left`, visited: (names) => `${names} came and went`,
    connecting: 'Connecting…', offline: 'You are offline. What you write is sent when the line is back.',
    lostFor: (s) => `The connection is lost. Trying again in ${s} s.`,
    elsewhere: 'This conversation goes on in another tab or window. What you write here waits.', takeBack: 'Continue here',
    notDelivered: (name) => `${name} has left before this could be delivered.`,
    gap: 'Some messages are older than the room’s history and can’t be shown.',
    newLife: 'The room has started anew: what was said before is no longer on the server.',
    noNotifications: 'The browser does not allow notifications for this page.',
    unconfirmed: 'It is not certain that this arrived.',
    refusals: {
      invalid_name: 'A name has 1 to 32 characters, none of them invisible. Please change it.',
      invalid_room: 'A room’s name has 1 to 64 of the characters a–z, A–Z, 0–9, _ and -. Please change it.',
      name_taken: 'Somebody in this room has that name. Please choose another.',
      room_limit: 'The server keeps no more rooms. Please join one that exists.',
    },
    errors: {
      no_such_user: 'Nobody here has that name.', empty_content: 'There is nothing in it.', too_big: 'It is too long.',
      bad_json: 'The server could not read it.', bad_request: 'The server could not read it.',
      unknown_type: 'The server could not read it.',
    },
  },
  zh: {
    yourName: '你的名字', roomName: '房间', joinRoom: '加入', copyLink: '复制链接', copied: '已复制',
    settings: '设置', playSound: '播放提示音', showNotifications: '桌面通知',
    changeRoom: '更换名字或房间', tryNow: '立即重试', conversation: '对话', members: '成员',
    pendingMessages: '正在发送的消息', message: '消息', typeHere: '输入消息', send: '发送',
    backToAll: '改为发给所有人', retry: '重新发送', discard: '丢弃', sending: '发送中…', you: '你',
    hint: '回车发送，Shift+回车换行，Tab 补全名字，/msg 名字 内容 发送私信。',
    writeTo: (name) => `给 ${name} 发私信`,
    toOnly: (name) => `发给 ${name}：只有你们两人能看到`,
    privateFrom: (from, to) => `${from} → ${to} · 只有你们两人能看到`,
    count: (n) => `${n} 人在线`, more: (n) => `还有 ${n} 人`,
    newMessages: (n) => `${n} 条新消息 ↓`,
    joined: (names) => `${names} 加入了`, left: (names) => `${names} 离开了`, visited: (names) => `${names} 来过又离开了`,
    connecting: '正在连接…', offline: '你已离线。恢复连接后会发送你写的内容。',
    lostFor: (s) => `连接已断开，${s} 秒后重试。`,
    elsewhere: '此对话已在另一个标签页或窗口中继续。你在这里写的内容会等待发送。', takeBack: '在此继续',
    notDelivered: (name) => `${name} 已离开，消息未能送达。`,
    gap: '有些消息早于房间保留的历史，无法显示。',
    newLife: '房间已重新开始：之前的内容已不在服务器上。',
    noNotifications: '浏览器不允许此页面显示通知。',
    unconfirmed: '不确定这条消息是否送达。',
    refusals: {
      invalid_name: '名字须为 1 到 32 个字符，且不含不可见字符。请修改。',
      invalid_room: '房间名须为 1 到 64 个字符，仅限 a–z、A–Z、0–9、_ 和 -。请修改。',
      name_taken: '房间里已有人使用这个名字。请换一个。',
      room_limit: '服务器上的房间已满。请加入已有的房间。',
    },
    errors: {
      no_such_user: '这里没有叫这个名字的人。', empty_content: '内容为空。', too_big: '内容太长。',
      bad_json: '服务器无法读取。', bad_request: '服务器无法读取。', unknown_type: '服务器无法读取。',
    },
  },
};
const language = (navigator.language || 'en').toLowerCase().startsWith('zh') ? 'zh' : 'en';
const text = TEXTS[language];
const clock = new Intl.DateTimeFormat(navigator.language, { hour: '2-digit', minute: '2-digit' });
const calendar = new Intl.DateTimeFormat(navigator.language, { weekday: 'long', day: 'numeric', month: 'long' });

// ---------------------------------------------------------------------------------------------------------- state

const $ = (id) => document.getElementById(id);
const me = { name: '', room: 'lobby' };
const line = {
  socket: null, open: false, attempts: 0, retry: 0, countdown: 0, steady: 0, welcome: 0,
  suspect: false, // seems open, but is not to be trusted
  replaced: false, // another tab goes on with the same session
  orphaned: 0, // when an attempt last ended without a welcome
  ticked: Date.now(),
};
const room = {
  session: null, epoch: null,
  seq: 0, // the newest public message shown here
  seen: 0, // and shown in this tab before it was loaded anew
  continued: false, // the server knew the session
  gap: false, // something has been missed for good
  caughtUp: true, // the last welcome's history is in
  toCome: 0, members: new Map(), // name in lower case → name
};
const pending = new Map(); // ref → { message, node, sent, by, failed }
const whispers = new Map(); // ref → message, of the last private ones that have their receipt
const view = { queue: [], scheduled: false, last: null, stick: true, below: 0, unread: 0, membersDue: false };
let refCount = 0;
const refPrefix = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join('');

/** Storage that may be switched off. */
const stored = (key, value) => {
  try {
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch { /* private browsing: nothing is remembered */ }
  return null;
};

const SEAT = 'parlour-seat';

/** Keeps for this tab what it needs to take its place again after a reload. */
function remember() {
  const { session, epoch, seq, seen } = room;
  const unsettled = [...pending.values()].map(({ message, sent, by, failed }) => ({ message, sent, by, failed }));
  const seat = { room: me.room, name: me.name, session, epoch, seen: Math.max(seq, seen), unsettled };
  try { sessionStorage.setItem(SEAT, JSON.stringify(seat)); } catch { /* a reload is a newcomer then */ }
}

function forgetSeat() {
  try { sessionStorage.removeItem(SEAT); } catch { /* nothing was kept */ }
}

/** What `remember` kept in this tab, or in the one it was copied from. */
function recall() {
  try { return JSON.parse(sessionStorage.getItem(SEAT)); } catch { return null; }
}

const make = (tag, className, content) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
};

// ----------------------------------------------------------------------------------------------------- connection

function connect() {
  clearTimeout(line.retry);
  clearInterval(line.countdown);
  line.replaced = false;
  showLine(text.connecting);
  const url = new URL('ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = new URLSearchParams({
    name: me.name, room: me.room,
    ...(room.session && { session: room.session }),
    ...(room.epoch && { epoch: room.epoch, since: room.seq }),
  });
  url.hash = '';
  disconnect(BROKEN);
  const socket = new WebSocket(url);
  line.socket = socket;
  line.welcome = setTimeout(() => {
    const wasOpen = line.open;
    disconnect(BROKEN);
    lost({ code: 1006, reason: '' }, wasOpen);
  }, WELCOME_MS);
  socket.onmessage = (event) => socket === line.socket && receive(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (socket !== line.socket) return;
    const wasOpen = line.open;
    disconnect();
    lost(event, wasOpen);
  };
}

/** Forgets the present socket; whatever it still says is not heard. */
function disconnect(code) {
  const socket = line.socket;
  line.socket = null;
  line.open = false;
  line.suspect = false;
  clearTimeout(line.steady);
  clearTimeout(line.welcome);
  if (socket && code) socket.close(code);
}

function lost({ code, reason }, wasOpen) {
  if (code === 1009) failOldest();
  if (code === 4410) {
    // Were both to try again, they would take the place from each other for ever.
    line.replaced = true;
    showLine(text.elsewhere, text.takeBack);
    return;
  }
  // The name may be one's own, taken by an attempt whose welcome got lost.
  const orphaned = code === 4409 && Date.now() - line.orphaned < ORPHAN_MS;
  if (FINAL.has(code) && !orphaned) {
    openDoor(text.refusals[reason] || reason);
    return;
  }
  if (!FINAL.has(code) && !wasOpen) line.orphaned = Date.now();
  const most = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** line.attempts);
  line.attempts += 1;
  const due = Date.now() + most * (0.5 + Math.random() / 2);
  const tell = () => {
    const seconds = Math.max(1, Math.ceil((due - Date.now()) / 1000));
    showLine(navigator.onLine === false ? text.offline : text.lostFor(seconds), text.tryNow);
  };
  tell();
  line.countdown = setInterval(tell, 1000);
  line.retry = setTimeout(connect, due - Date.now());
}

/** Connects at once if a connection is wanted and missing, or not to be trusted. */
function hurry() {
  if ($('parlour').hidden || line.replaced || (line.socket && !line.suspect)) return;
  line.attempts = 0;
  connect();
}
addEventListener('online', hurry);
addEventListener('offline', () => { line.suspect = true; });
addEventListener('pageshow', hurry);
addEventListener('pagehide', () => { if (!$('parlour').hidden) remember(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  view.unread = 0;
  showUnread();
  tick();
  hurry();
});

/** Looks whether the line can still be alive. */
function tick() {
  const now = Date.now();
  const asleep = now - line.ticked > ASLEEP_MS;
  line.ticked = now;
  const isOverdue = (item) => !item.failed && item.sent && item.sent < now - RECEIPT_MS;
  const overdue = line.open && room.toCome === 0 && [...pending.values()].some(isOverdue);
  if (!asleep && !overdue) return;
  line.suspect = true;
  hurry();
}
setInterval(tick, 1000);

// ------------------------------------------------------------------------------------------------------- receiving

function receive(message) {
  switch (message.type) {
    case 'welcome': return welcomed(message);
    case 'public': return heardPublic(message);
    case 'private': return heard(message);
    case 'join': return came(message);
    case 'leave': return went(message);
    case 'error': return complained(message);
  }
}

function welcomed(message) {
  me.name = message.user;
  line.open = true;
  line.steady = setTimeout(() => { line.attempts = 0; }, STEADY_MS);
  showLine('');
  room.members = new Map(message.users.map((name) => [name.toLowerCase(), name]));
  membersChanged();
  const known = room.epoch === message.epoch;
  if (!known) {
    if (room.epoch !== null) show({ type: 'divider', content: text.newLife });
    room.seq = 0;
    room.seen = 0;
  }
  const gap = known && message.seq - message.history > Math.max(room.seq, room.seen);
  if (gap) show({ type: 'divider', content: text.gap });
  // If the line broke before the last welcome's history was in, what that welcome said still counts.
  room.gap = gap || (room.gap && !room.caughtUp);
  room.continued = room.session === message.session && (room.continued || room.caughtUp);
  room.caughtUp = false;
  room.session = message.session;
  room.epoch = message.epoch;
  room.toCome = message.history;
  remember();
  $('live').setAttribute('aria-live', 'off');
  caughtUp();
}

function heardPublic(message) {
  const live = room.toCome === 0;
  if (!live) room.toCome -= 1;
  if (message.seq > room.seq) {
    room.seq = message.seq;
    heard(message, live);
  } else {
    settle(message); // shown before the line broke, and so is its receipt
  }
  if (!live) caughtUp();
}

/** Once the history is in, what has no receipt goes out again. */
function caughtUp() {
  if (room.toCome > 0) return;
  clearTimeout(line.welcome);
  room.caughtUp = true;
  setTimeout(() => $('live').setAttribute('aria-live', 'polite'), 500);
  for (const item of pending.values()) {
    if (item.failed) continue;
    // Sent again, it would be said twice if it had arrived and the server did not know it any more.
    const isKnown = item.message.type === 'private' ? room.continued : !room.gap;
    if (item.sent && !isKnown) fail(item, text.unconfirmed);
    else transmit(item);
  }
}

function heard(message, live = true) {
  settle(message);
  show(message);
  if (live && message.user !== me.name) attract(message);
}

function came(message) {
  const key = message.user.toLowerCase();
  if (room.members.has(key)) return; // oneself, at the end of the history
  room.members.set(key, message.user);
  membersChanged();
  show(message);
}

function went(message) {
  room.members.delete(message.user.toLowerCase());
  membersChanged();
  show(message);
}

function complained(message) {
  const said = text.errors[message.code] || message.content;
  const item = pending.get(message.ref);
  const whisper = whispers.get(message.ref);
  if (item) fail(item, said);
  else if (whisper) takeBack(whisper);
  else if (line.open) show({ type: 'note', content: said });
}

// --------------------------------------------------------------------------------------------------------- sending

function send(message) {
  refCount += 1;
  message.ref = `${refPrefix}-${refCount}`;
  const item = hold({ message, sent: 0, by: me.name, failed: '' });
  toEnd();
  remember();
  if (line.open && room.toCome === 0) transmit(item);
}

/** Shows a message below the others until it has its receipt. */
function hold(item) {
  item.node = make('li');
  pending.set(item.message.ref, item);
  drawPending(item);
  $('pending').append(item.node);
  return item;
}

function transmit(item) {
  item.sent = Date.now();
  item.by = me.name;
  item.failed = '';
  drawPending(item);
  line.socket.send(JSON.stringify(item.message));
}

/** The receipt has come: the message itself takes the place of the pending one. Another's message with its ref is none. */
function settle({ ref, user, type, to, content }) {
  const item = pending.get(ref);
  if (!item || item.by !== user) return;
  if (type === 'private') {
    whispers.set(ref, { type, to, content, ref });
    if (whispers.size > WHISPERS_MAX) whispers.delete(whispers.keys().next().value);
  }
  discard(item);
}

function discard(item) {
  pending.delete(item.message.ref);
  item.node.remove();
  remember();
}

/** A private message waited for somebody who did not come back: it was not delivered after all. */
function takeBack(message) {
  whispers.delete(message.ref);
  view.queue = view.queue.filter((entry) => entry.ref !== message.ref || entry.user !== me.name);
  for (const node of $('log').querySelectorAll('.private')) if (node.dataset.ref === message.ref) node.remove();
  fail(hold({ message, sent: 0, by: me.name, failed: '' }), text.notDelivered(message.to));
}

function fail(item, why) {
  item.failed = why;
  drawPending(item);
  toEnd();
  remember();
}

function failOldest() {
  for (const item of pending.values()) {
    if (item.sent && !item.failed) return fail(item, text.errors.too_big);
  }
}

function drawPending(item) {
  const { message, node, failed } = item;
  node.className = `message ${message.type} ${failed ? 'failed' : ''}`;
  const status = make('div', 'status');
  if (failed) {
    const again = make('button', '', text.retry);
    again.type = 'button';
    again.onclick = () => {
      item.failed = '';
      item.sent = 0;
      drawPending(item);
      if (line.open && room.toCome === 0) transmit(item);
    };
    const drop = make('button', '', text.discard);
    drop.type = 'button';
    drop.onclick = () => discard(item);
    const why = make('span', '', failed);
    why.setAttribute('role', 'alert');
    status.append(why, again, drop);
  } else {
    status.append(make('span', '', text.sending));
  }
  const parts = [];
  if (message.to) parts.push(make('div', 'only', text.toOnly(message.to)));
  parts.push(body(message.content), status);
  node.replaceChildren(...parts);
}

// --------------------------------------------------------------------------------------------------------- drawing

/** Draws later, once for all that has come by then: a burst costs one layout. */
function show(entry) {
  view.queue.push({ ts: Date.now(), ...entry });
  schedule();
}

function schedule() {
  if (view.scheduled) return;
  view.scheduled = true;
  // A hidden tab gets no animation frames.
  if (document.hidden) setTimeout(draw, 200);
  else requestAnimationFrame(draw);
}

function draw() {
  view.scheduled = false;
  const entries = view.queue.splice(0).slice(-MESSAGES_MAX);
  const fragment = document.createDocumentFragment();
  for (const entry of entries) drawEntry(entry, fragment);
  const log = $('log');
  log.append(fragment);
  const keep = view.stick ? MESSAGES_MAX : 2 * MESSAGES_MAX;
  while (log.childElementCount > keep) log.firstElementChild.remove();
  if (view.stick) toEnd();
  else {
    view.below += entries.filter((entry) => entry.content && !['join', 'leave'].includes(entry.type)).length;
    showPill();
  }
  if (view.membersDue) drawMembers();
}

function drawEntry(entry, fragment) {
  const when = new Date(entry.ts);
  const day = when.toDateString();
  if (view.last === null || view.last.day !== day) {
    fragment.append(make('li', 'day', calendar.format(when)));
    view.last = { day };
  }
  if (entry.type === 'join' || entry.type === 'leave') return drawNotice(entry, fragment, day);
  if (entry.type === 'note') {
    fragment.append(make('li', 'notice', entry.content));
    view.last = { day };
    return;
  }
  if (entry.type === 'divider') {
    fragment.append(make('li', 'divider', entry.content));
    view.last = { day };
    return;
  }
  const isPrivate = entry.type === 'private';
  const more = !isPrivate && view.last.user === entry.user && entry.ts - view.last.ts < GROUP_MS;
  const node = make('li', `message ${entry.type}${more ? ' more' : ''}`);
  if (entry.user !== me.name && mentions(entry.content)) node.classList.add('mention');
  const by = make('div', more ? 'by unseen' : 'by');
  const time = make('time', '', clock.format(when));
  time.dateTime = when.toISOString();
  if (isPrivate) {
    if (entry.ref && entry.user === me.name) node.dataset.ref = entry.ref;
    const display = (name) => (name === me.name ? text.you : name);
    by.append(make('bdi', 'only', text.privateFrom(display(entry.user), display(entry.to))), time);
  } else {
    by.append(nameNode(entry.user), time);
  }
  node.append(by, body(entry.content));
  fragment.append(node);
  view.last = isPrivate ? { day } : { day, user: entry.user, ts: entry.ts };
}

/** Joins and leaves in a row share one line. */
function drawNotice(entry, fragment, day) {
  let fold = view.last.fold;
  if (!fold) {
    fold = { node: make('li', 'notice'), states: new Map() };
    fold.node.setAttribute('aria-live', 'off');
    fragment.append(fold.node);
    view.last = { day, fold };
  }
  const before = fold.states.get(entry.user);
  const after = entry.type === 'join' ? 'joined' : 'left';
  // Left and back again is no news.
  if (before === 'left' && after === 'joined') fold.states.delete(entry.user);
  else fold.states.set(entry.user, before && after === 'left' ? 'visited' : after);
  const parts = ['joined', 'left', 'visited'].map((state) => {
    const names = [...fold.states].filter(([, each]) => each === state).map(([name]) => `\u2068${name}\u2069`);
    if (names.length === 0) return '';
    const shown = names.slice(0, 4).join(', ');
    return text[state](names.length > 4 ? `${shown} ${text.more(names.length - 4)}` : shown);
  });
  fold.node.textContent = parts.filter(Boolean).join(' · ');
}

function nameNode(name) {
  const node = make('bdi', 'name', name);
  node.style.setProperty('--hue', hue(name));
  return node;
}

/** A hue that belongs to the name: FNV-1a, its bits mixed once more so that short names spread over the circle. */
function hue(name) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name.toLowerCase())) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return ((hash ^ (hash >>> 16)) >>> 0) % 360;
}

/** Text with its web addresses made links. Nothing but http and https becomes one. */
function body(content) {
  const node = make('p', 'body');
  node.dir = 'auto';
  let from = 0;
  for (const match of content.matchAll(/https?:\/\/[^\s<>"'`\u2028-\u202e\u2066-\u2069]+/gi)) {
    let address = match[0].replace(/[.,;:!?…。，；：！？]+$/u, '');
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

const mentions = (content) => content.toLowerCase().includes(`@${me.name.toLowerCase()}`);

// ------------------------------------------------------------------------------------------------------- scrolling

const scroll = $('scroll');
function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
  view.stick = true;
  view.below = 0;
  showPill();
}
function showPill() {
  $('pill').hidden = view.stick || view.below === 0;
  $('pill').textContent = text.newMessages(view.below);
}
scroll.addEventListener('scroll', () => {
  view.stick = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END_PX;
  if (view.stick) view.below = 0;
  showPill();
}, { passive: true });
// The on-screen keyboard, a turned phone: whoever was at the end stays there.
new ResizeObserver(() => { if (view.stick) toEnd(); }).observe(scroll);
if (window.visualViewport) {
  visualViewport.addEventListener('resize', () => {
    $('parlour').style.setProperty('--height', `${visualViewport.height}px`);
  });
}
$('pill').onclick = () => { toEnd(); $('text').focus(); };

// --------------------------------------------------------------------------------------------------------- members

function membersChanged() {
  view.membersDue = true;
  schedule();
}

function drawMembers() {
  view.membersDue = false;
  const names = [...room.members.values()].sort((a, b) => a.localeCompare(b, navigator.language));
  $('count').textContent = text.count(names.length);
  $('show-members').textContent = text.count(names.length);
  const items = names.slice(0, MEMBERS_SHOWN_MAX).map((name) => {
    const item = make('li');
    const button = make('button');
    button.type = 'button';
    button.append(nameNode(name), name === me.name ? ` (${text.you})` : '');
    if (name !== me.name) button.setAttribute('aria-label', text.writeTo(name));
    button.onclick = () => (name === me.name ? $('text').focus() : writeTo(name));
    item.append(button);
    return item;
  });
  if (names.length > MEMBERS_SHOWN_MAX) items.push(make('li', 'notice', text.more(names.length - MEMBERS_SHOWN_MAX)));
  // Whoever walks the list by keyboard keeps the place.
  const focused = [...$('names').querySelectorAll('button')].indexOf(document.activeElement);
  $('names').replaceChildren(...items);
  if (focused >= 0) $('names').querySelectorAll('button')[Math.min(focused, names.length - 1)].focus();
}

$('show-members').onclick = () => {
  const open = $('members').classList.toggle('open');
  $('show-members').setAttribute('aria-expanded', open);
};

// -------------------------------------------------------------------------------------------------------- composer

const input = $('text');
let recipient = null;
let completion = null;

function writeTo(name) {
  recipient = name;
  $('recipient').hidden = name === null;
  $('recipient-text').textContent = name === null ? '' : text.toOnly(name);
  $('members').classList.remove('open');
  $('show-members').setAttribute('aria-expanded', false);
  input.focus();
}
$('public').onclick = () => writeTo(null);

function submit() {
  const content = input.value.replace(/\s+$/, '');
  if (content.trim() === '') return;
  const command = /^\/msg\s+(.*)$/s.exec(content);
  if (command) {
    const split = splitRecipient(command[1]);
    if (!split) return;
    send({ type: 'private', ...split });
  } else if (recipient !== null) {
    send({ type: 'private', to: recipient, content });
  } else {
    send({ type: 'public', content });
  }
  input.value = '';
  grow();
}

/** The name at the beginning of what follows /msg; names may contain spaces, so the longest that fits. */
function splitRecipient(rest) {
  const fits = [...room.members.values()].filter((name) => {
    const next = rest[name.length];
    return rest.slice(0, name.length).toLowerCase() === name.toLowerCase() && next !== undefined && /\s/.test(next);
  });
  const to = fits.sort((a, b) => b.length - a.length)[0] || /^\S+(?=\s)/.exec(rest)?.[0];
  const content = to && rest.slice(to.length).trim();
  return content ? { to, content } : null;
}

function grow() {
  input.style.height = 'auto';
  input.style.height = `${input.scrollHeight + 2}px`;
}

/** Tab after the beginning of a name completes it, and again for the next that fits. Elsewhere it moves the focus. */
function complete() {
  const caret = input.selectionStart;
  if (!completion || completion.end !== caret) {
    const start = input.value.slice(0, caret).search(/\S+$/);
    if (start < 0) return false;
    const stem = input.value.slice(start, caret).replace(/^@/, '').toLowerCase();
    const names = [...room.members.values()].filter((name) => name !== me.name && name.toLowerCase().startsWith(stem));
    if (stem === '' || names.length === 0) return false;
    const at = input.value[start] === '@' ? start + 1 : start;
    completion = { start: at, end: caret, names: names.sort(), next: 0 };
  }
  const name = completion.names[completion.next % completion.names.length];
  const inserted = completion.start === 0 ? `${name}: ` : `${name} `;
  input.setRangeText(inserted, completion.start, completion.end, 'end');
  completion.end = completion.start + inserted.length;
  completion.next += 1;
  return true;
}

input.addEventListener('input', () => { completion = null; grow(); });
input.addEventListener('keydown', (event) => {
  // While an input method composes, its keys are its own.
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

// ------------------------------------------------------------------------------------------------ attention, status

function showLine(said, action = '') {
  $('line').hidden = said === '';
  if ($('line-text').textContent !== said) $('line-text').textContent = said;
  $('retry-line').hidden = action === '';
  if (action !== '') $('retry-line').textContent = action;
}
$('retry-line').onclick = () => { line.attempts = 0; connect(); };

function attract(message) {
  if (document.hidden) {
    view.unread += 1;
    showUnread();
    if ($('notify').checked && window.Notification?.permission === 'granted') {
      // Some phones know the name and throw all the same.
      try {
        new Notification(`${message.user} · ${me.room}`, { body: message.content.slice(0, 200), tag: `parlour-${me.room}` });
      } catch { /* the title tells too */ }
    }
  }
  if ($('sound').checked && (document.hidden || message.type === 'private' || mentions(message.content))) beep();
}

function showUnread() {
  document.title = view.unread > 0 ? `(${view.unread}) ${me.room}` : `${me.room} · parlour`;
  const badge = view.unread > 0
    ? `<circle cx="22" cy="10" r="10" fill="#d1242f"/><text x="22" y="15" font-size="14" font-family="sans-serif" fill="#fff" text-anchor="middle">${Math.min(view.unread, 99)}</text>`
    : '';
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 6h24v16H14l-6 6v-6H4z" fill="#0a58ca"/>${badge}</svg>`;
  document.querySelector('link[rel=icon]').href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
}

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

for (const id of ['sound', 'notify']) {
  $(id).checked = stored(`parlour-${id}`) === 'yes';
  $(id).onchange = async () => {
    if (id === 'sound' && $(id).checked) beep();
    if (id === 'notify' && $(id).checked && (await window.Notification?.requestPermission()) !== 'granted') {
      $(id).checked = false;
      show({ type: 'note', content: text.noNotifications });
    }
    stored(`parlour-${id}`, $(id).checked ? 'yes' : 'no');
  };
}

$('copy').onclick = async () => {
  const link = roomLink();
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // Without https there is no clipboard interface, but the old command works.
    const field = make('textarea', 'unseen', link);
    document.body.append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  $('copy').textContent = text.copied;
  setTimeout(() => { $('copy').textContent = text.copyLink; }, 2000);
};

function roomLink() {
  const url = new URL(location.href);
  url.search = new URLSearchParams({ room: me.room });
  url.hash = '';
  return url.href;
}

// ------------------------------------------------------------------------------------------------------------ door

function openDoor(refusal = '') {
  disconnect(1000);
  forgetSeat();
  line.replaced = false;
  clearTimeout(line.retry);
  clearInterval(line.countdown);
  $('parlour').hidden = true;
  $('door').hidden = false;
  $('refusal').hidden = refusal === '';
  $('refusal').textContent = refusal;
  $('name').value = me.name;
  $('room').value = me.room;
  (refusal === text.refusals.invalid_room || refusal === text.refusals.room_limit ? $('room') : $('name')).select();
}

function enter() {
  $('door').hidden = true;
  $('parlour').hidden = false;
  $('room-name').textContent = me.room;
  history.replaceState(null, '', roomLink());
  showUnread();
  line.attempts = 0;
  connect();
  input.focus();
}

/** Another room is another conversation. */
function forgetRoom() {
  Object.assign(room, { session: null, epoch: null, seq: 0, seen: 0, gap: false, caughtUp: true });
  room.members.clear();
  pending.clear();
  whispers.clear();
  view.queue.length = 0;
  view.last = null;
  $('log').replaceChildren();
  $('pending').replaceChildren();
  writeTo(null);
}

$('join').addEventListener('submit', (event) => {
  event.preventDefault();
  const roomBefore = me.room;
  me.name = $('name').value.trim();
  me.room = $('room').value.trim();
  stored('parlour-name', me.name);
  if (me.room !== roomBefore) forgetRoom();
  remember();
  enter();
});
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

function start() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll('[data-text]')) node.textContent = text[node.dataset.text];
  for (const node of document.querySelectorAll('[data-label]')) node.setAttribute('aria-label', text[node.dataset.label]);
  input.placeholder = text.typeHere;
  me.name = stored('parlour-name') || '';
  me.room = new URLSearchParams(location.search).get('room') || 'lobby';
  showUnread();
  // A reload goes back to where it was.
  const seat = recall();
  if (seat?.room !== me.room) return openDoor();
  me.name = seat.name;
  Object.assign(room, { session: seat.session, epoch: seat.epoch, seen: seat.seen });
  seat.unsettled.forEach(hold);
  enter();
}
start();
